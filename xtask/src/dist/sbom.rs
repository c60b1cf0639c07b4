//! The bill of materials of a binary, in CycloneDX's JSON. In: its crates, its own
//! checksum, a time. Out: the text. Written here and not by cargo-cyclonedx: that
//! one would not know the crates of the kernel object, which no dependency names,
//! and puts the checkout's path into its references.

use serde_json::{Value, json};

use super::crates::{Crate, Crates, Id};

/// What is described.
#[derive(Debug)]
pub struct Binary<'a> {
    /// The agent.
    pub root: &'a Id,
    /// The crate of the kernel object inside.
    pub object: &'a Id,
    /// SHA-256 of the file, in hex.
    pub sha256: &'a str,
    /// Its target, as rustc calls it.
    pub target: &'a str,
    /// Version of the standard library inside.
    pub std_version: &'a str,
    /// RFC 3339; none if nobody knows when the sources were made.
    pub timestamp: Option<String>,
}

/// The text of the bill.
pub fn render(binary: &Binary<'_>, crates: &Crates) -> String {
    let std_ref = format!("rust-std@{}", binary.std_version);
    let mut components = vec![json!({
        "type": "library",
        "bom-ref": std_ref,
        "name": "std",
        "version": binary.std_version,
        "description": "the Rust standard library, with the musl libc that it brings",
        "scope": "required",
    })];
    let mut dependencies = Vec::new();
    for (id, known) in crates {
        let mut uses: Vec<String> = known.uses.iter().map(purl).collect();
        if id == binary.root {
            uses.extend([purl(binary.object), std_ref.clone()]);
            uses.sort();
        } else {
            components.push(component(id, known));
        }
        dependencies.push(json!({ "ref": purl(id), "dependsOn": uses }));
    }
    let license = crates.get(binary.root).map_or("", |root| &root.license);
    let mut metadata = json!({
        "component": {
            "type": "application",
            "bom-ref": purl(binary.root),
            "name": binary.root.0,
            "version": binary.root.1,
            "hashes": [{ "alg": "SHA-256", "content": binary.sha256 }],
            "licenses": [{ "expression": spdx(license) }],
            "properties": [{ "name": "target", "value": binary.target }],
        },
    });
    if let Some(timestamp) = &binary.timestamp {
        metadata["timestamp"] = json!(timestamp);
    }
    let bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": dependencies,
    });
    format!("{bill:#}\n")
}

fn component(id: &Id, known: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(id),
        "name": id.0,
        "version": id.1,
        "purl": purl(id),
        "scope": if known.is_shipped { "required" } else { "excluded" },
    });
    if !known.license.is_empty() {
        component["licenses"] = json!([{ "expression": spdx(&known.license) }]);
    }
    if let Some(checksum) = &known.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// A package URL; `+` would be read as a blank.
fn purl((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Cargo used to allow `MIT/Apache-2.0`, which SPDX does not.
fn spdx(license: &str) -> String {
    let choices: Vec<&str> = license.split('/').map(str::trim).collect();
    choices.join(" OR ")
}

#[cfg(test)]
mod tests {
    use super::super::crates::{add_checksums, add_tree};
    use super::*;

    fn bill(timestamp: Option<&str>) -> Value {
        let mut crates = Crates::new();
        let tree = "0agent v0.1.0 (/x)|MIT OR Apache-2.0\n1wasi v0.11.0+snap|MIT/Apache-2.0\n\
                    1derive v1.0.0 (proc-macro)|MIT\n";
        let root = add_tree(&mut crates, tree, true).unwrap();
        let object = add_tree(&mut crates, "0object v0.1.0 (/y)|MIT\n", true).unwrap();
        let lock = "[[package]]\nname = \"wasi\"\nversion = \"0.11.0+snap\"\nchecksum = \"ab\"\n";
        add_checksums(&mut crates, lock);
        let binary = Binary {
            root: &root,
            object: &object,
            sha256: "cd",
            target: "x86_64-unknown-linux-musl",
            std_version: "1.98.0",
            timestamp: timestamp.map(str::to_owned),
        };
        serde_json::from_str(&render(&binary, &crates)).unwrap()
    }

    #[test]
    fn the_bill_names_what_is_inside_and_what_only_built_it() {
        let bill = bill(None);
        let components = bill["components"].as_array().unwrap();
        let names: Vec<_> = components
            .iter()
            .map(|c| (c["name"].as_str().unwrap(), c["scope"].as_str().unwrap()))
            .collect();
        assert_eq!(
            names,
            [
                ("std", "required"),
                ("derive", "excluded"),
                ("object", "required"),
                ("wasi", "required"),
            ]
        );
        assert_eq!(components[3]["purl"], "pkg:cargo/wasi@0.11.0%2Bsnap");
        assert_eq!(
            components[3]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(components[3]["hashes"][0]["content"], "ab");
        assert_eq!(bill["metadata"]["component"]["hashes"][0]["content"], "cd");
    }

    #[test]
    fn the_binary_depends_on_its_kernel_object_and_on_std() {
        let bill = bill(None);
        assert_eq!(
            bill["dependencies"][0],
            json!({
                "ref": "pkg:cargo/agent@0.1.0",
                "dependsOn": [
                    "pkg:cargo/derive@1.0.0",
                    "pkg:cargo/object@0.1.0",
                    "pkg:cargo/wasi@0.11.0%2Bsnap",
                    "rust-std@1.98.0",
                ],
            })
        );
    }

    #[test]
    fn the_time_is_that_of_the_sources_or_left_out() {
        let time = "2026-11-25T03:00:00Z";
        assert_eq!(bill(Some(time))["metadata"]["timestamp"], time);
        assert!(bill(None)["metadata"].get("timestamp").is_none());
    }
}
