//! Placeholder.
use std::ffi::OsString;
/// x
pub const BYSTANDER_SUBCOMMAND: &str = "__bystander";
/// x
pub fn is_writer_command(_a: &[OsString]) -> bool {
    false
}
/// x
pub fn serve_main(_a: &[OsString]) -> anyhow::Result<u8> {
    Ok(2)
}
/// x
pub fn bystander_main(_a: &[OsString]) -> anyhow::Result<u8> {
    Ok(2)
}
