//! Which crates are in the agent, and in its kernel object, and which only helped
//! to build it. In: what `cargo tree` prints and Cargo.lock. Out: the crates with
//! licence, checksum and what each depends on. Not here: how that is written down
//! (`sbom`).
//!
//! `cargo tree` and not `cargo metadata`: the latter unites the features of the
//! whole workspace, so it names crates that the agent does not have.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, bail};

/// Name and version.
pub type Id = (String, String);

/// A crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crate {
    /// As its author gives it.
    pub license: String,
    /// It is in the binary; else it only ran while that was built.
    pub is_shipped: bool,
    /// SHA-256 of what was fetched, in hex; none of our own crates.
    pub checksum: Option<String>,
    /// What it uses.
    pub uses: BTreeSet<Id>,
    is_macro: bool,
}

/// Crates by name and version.
pub type Crates = BTreeMap<Id, Crate>;

/// What to have `cargo tree` print: `parse` reads it.
pub const TREE_FORMAT: [&str; 4] = ["--prefix", "depth", "--format", "{p}|{l}"];

/// Adds a tree to what is known. Out: its root. With `is_shipped`, what a path from
/// the root reaches without a procedural macro on it is in the binary.
pub fn add_tree(crates: &mut Crates, tree: &str, is_shipped: bool) -> anyhow::Result<Id> {
    let (mut found, root) = parse_tree(tree)?;
    if is_shipped {
        ship(&mut found, &root);
    }
    for (id, new) in found {
        let known = crates.entry(id).or_default();
        known.license = new.license;
        known.is_macro = new.is_macro;
        known.is_shipped |= new.is_shipped;
        known.uses.extend(new.uses);
    }
    Ok(root)
}

fn parse_tree(tree: &str) -> anyhow::Result<(Crates, Id)> {
    let mut crates = Crates::new();
    let mut path: Vec<Id> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, id, license, is_macro) =
            parse_line(line).with_context(|| format!("read cargo tree's line {line}"))?;
        if depth > path.len() {
            bail!("cargo tree's line {line} has no parent");
        }
        path.truncate(depth);
        if let Some(parent) = path.last() {
            let parent = crates.entry(parent.clone()).or_default();
            parent.uses.insert(id.clone());
        }
        let known = crates.entry(id.clone()).or_default();
        known.license = license;
        known.is_macro = is_macro;
        path.push(id);
    }
    let root = path.into_iter().next().context("cargo tree is empty")?;
    Ok((crates, root))
}

/// Marks what ends up in the binary.
fn ship(crates: &mut Crates, root: &Id) {
    let mut next = vec![root.clone()];
    while let Some(id) = next.pop() {
        if let Some(known) = crates.get_mut(&id)
            && !known.is_macro
            && !known.is_shipped
        {
            known.is_shipped = true;
            next.extend(known.uses.iter().cloned());
        }
    }
}

/// `2syn v3.0.10 (proc-macro) (*)|MIT OR Apache-2.0 (*)`.
fn parse_line(line: &str) -> Option<(usize, Id, String, bool)> {
    let (package, license) = line.split_once('|')?;
    let digits = package.find(|c: char| !c.is_ascii_digit())?;
    let (depth, package) = package.split_at(digits);
    let mut words = package.split(' ');
    let name = words.next()?.to_owned();
    let version = words.next()?.strip_prefix('v')?.to_owned();
    let is_macro = words.any(|word| word == "(proc-macro)");
    let license = license.trim_end_matches(" (*)").to_owned();
    Some((depth.parse().ok()?, (name, version), license, is_macro))
}

/// Adds the checksums that Cargo.lock holds.
pub fn add_checksums(crates: &mut Crates, lock: &str) {
    let found = parse_lock(lock);
    for (id, known) in crates {
        known.checksum = found.get(id).cloned();
    }
}

fn parse_lock(lock: &str) -> HashMap<Id, String> {
    let mut found = HashMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            package.lines().find_map(|line| {
                let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
                value.strip_suffix('"').map(str::to_owned)
            })
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        (name.to_owned(), version.to_owned())
    }

    const TREE: &str = "\
0agent v0.1.0 (/home/me/agent)|MIT
1serde v1.0.2|MIT OR Apache-2.0
2serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0
3syn v2.0.1|MIT/Apache-2.0
4ident v1.0.0|Unicode-3.0
1ident v1.0.0|Unicode-3.0
1tokio v1.5.0|MIT
2serde v1.0.2|MIT OR Apache-2.0 (*)
";

    #[test]
    fn a_macro_and_what_only_it_uses_is_not_shipped() {
        let mut crates = Crates::new();
        let root = add_tree(&mut crates, TREE, true).unwrap();
        assert_eq!(root, id("agent", "0.1.0"));
        let shipped: Vec<&str> = crates
            .iter()
            .filter(|(_, known)| known.is_shipped)
            .map(|((name, _), _)| &**name)
            .collect();
        assert_eq!(shipped, ["agent", "ident", "serde", "tokio"]);
        assert_eq!(
            crates[&id("tokio", "1.5.0")].uses,
            BTreeSet::from([id("serde", "1.0.2")])
        );
        assert_eq!(crates[&id("serde", "1.0.2")].license, "MIT OR Apache-2.0");
    }

    #[test]
    fn build_dependencies_are_known_and_not_shipped() {
        let mut crates = Crates::new();
        let built = format!("{TREE}1cc v1.0.0|MIT\n");
        add_tree(&mut crates, &built, false).unwrap();
        add_tree(&mut crates, TREE, true).unwrap();
        assert!(!crates[&id("cc", "1.0.0")].is_shipped);
        assert!(crates[&id("tokio", "1.5.0")].is_shipped);
    }

    #[test]
    fn checksums_are_those_of_the_same_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\n\
                    checksum = \"abc\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1.4.0\"\n\
                    checksum = \"def\"\n\n[[package]]\nname = \"agent\"\nversion = \"0.1.0\"\n";
        let mut crates = Crates::new();
        add_tree(&mut crates, TREE, true).unwrap();
        add_checksums(&mut crates, lock);
        assert_eq!(
            crates[&id("serde", "1.0.2")].checksum.as_deref(),
            Some("abc")
        );
        assert_eq!(crates[&id("tokio", "1.5.0")].checksum, None);
        assert_eq!(crates[&id("agent", "0.1.0")].checksum, None);
    }

    #[test]
    fn what_is_no_tree_is_an_error() {
        for tree in [
            "",
            "1a v1|MIT\n",
            "0a v1|MIT\n2b v1|MIT\n",
            "0a|MIT\n",
            "x\n",
        ] {
            assert!(
                add_tree(&mut Crates::new(), tree, true).is_err(),
                "{tree:?}"
            );
        }
    }
}
