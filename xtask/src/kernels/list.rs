//! Which kernels: tests/KERNELS, and what was typed after `--kernel`. In: text.
//! Out: kernels in the order of the list. Pure. Not here: which packages they are
//! in (`archive`).

use anyhow::{Context, bail};

/// One kernel of the list, or one that was asked for by `any:VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `6.12`, or as exact as `6.12.95`.
    pub version: String,
    /// Debian's flavour: `cloud`, or `generic`.
    pub flavour: String,
    /// Part of the subset for every change.
    pub is_ci: bool,
    /// Not part of the matrix: its disk and file system are modules, which are loaded
    /// after the agent.
    pub is_late: bool,
}

impl Kernel {
    /// As it is asked for.
    pub fn name(&self) -> String {
        match &*self.flavour {
            "cloud" => self.version.clone(),
            flavour => format!("{}-{flavour}", self.version),
        }
    }
}

/// The list, from its text.
pub fn parse(text: &str) -> anyhow::Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (version, flavour, mark) = match words[..] {
            [] => continue,
            [version, flavour] => (version, flavour, ""),
            [version, flavour, mark @ ("ci" | "late-modules")] => (version, flavour, mark),
            _ => bail!(
                "tests/KERNELS:{}: not `VERSION FLAVOUR [ci|late-modules]`",
                index + 1
            ),
        };
        parse_version(version).with_context(|| format!("tests/KERNELS:{}", index + 1))?;
        kernels.push(Kernel {
            version: version.to_owned(),
            flavour: flavour.to_owned(),
            is_ci: mark == "ci",
            is_late: mark == "late-modules",
        });
    }
    Ok(kernels)
}

/// The kernels that were asked for; all of the list if none was.
pub fn pick(list: &[Kernel], asked: &[String]) -> anyhow::Result<Vec<Kernel>> {
    if asked.is_empty() {
        return Ok(list.to_vec());
    }
    asked.iter().map(|asked| pick_one(list, asked)).collect()
}

fn pick_one(list: &[Kernel], asked: &str) -> anyhow::Result<Kernel> {
    if let Some(version) = asked.strip_prefix("any:") {
        parse_version(version).with_context(|| format!("--kernel {asked}"))?;
        return Ok(Kernel {
            version: version.to_owned(),
            flavour: "cloud".to_owned(),
            is_ci: false,
            is_late: false,
        });
    }
    let found = list.iter().find(|kernel| kernel.name() == asked);
    found.cloned().with_context(|| {
        let known: Vec<String> = list.iter().map(Kernel::name).collect();
        format!(
            "--kernel {asked}: not in tests/KERNELS, which has {}; any:{asked} asks the archive",
            known.join(", ")
        )
    })
}

/// `6.12.95` → `[6, 12, 95]`.
pub fn parse_version(text: &str) -> anyhow::Result<Vec<u64>> {
    let parts: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
    match parts {
        Ok(parts) if parts.len() >= 2 => Ok(parts),
        _ => bail!("{text} is no version of a kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_the_tree_is_well_formed_and_in_order() {
        let file = crate::process::repository().join("tests/KERNELS");
        let kernels = parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        let versions: Vec<_> = kernels
            .iter()
            .map(|kernel| parse_version(&kernel.version).unwrap())
            .collect();
        assert!(versions.is_sorted());
        assert_eq!(versions.first(), Some(&vec![5, 10]));
        assert_eq!(kernels.iter().filter(|kernel| kernel.is_ci).count(), 3);
    }

    #[test]
    fn a_kernel_outside_the_list_must_be_asked_for_as_such() {
        let list = parse("5.10 cloud ci\n").unwrap();
        let err = pick(&list, &["6.16".into()]).unwrap_err();
        assert!(err.to_string().contains("any:6.16"), "{err:#}");
        let picked = pick(&list, &["any:6.16".into()]).unwrap();
        assert_eq!(picked[0].version, "6.16");
        assert!(pick(&list, &["any:six".into()]).is_err());
        assert_eq!(pick(&list, &[]).unwrap(), list);
    }

    #[test]
    fn a_bad_line_is_named() {
        let err = parse("# x\n5.10 cloud sometimes\n").unwrap_err();
        assert!(err.to_string().starts_with("tests/KERNELS:2"), "{err:#}");
    }
}
