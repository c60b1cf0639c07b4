//! Tests of the facts: `kernels` on extracts of vendors' BTF, `malformed` on
//! broken input, `synthetic` on blobs built here for what the extracts don't
//! have, `live` and `preemption` on made-up /proc and /sys.

mod builder;
mod kernels;
mod live;
mod malformed;
mod preemption;
mod synthetic;

use std::path::PathBuf;

/// An extract, written by `examples/btf_extract.rs`.
fn extract(name: &str) -> Vec<u8> {
    let path = extracts().join(format!("{name}.btf"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

fn extracts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/btf")
}
