//! The distribution's archive, asked by apt with a configuration of its own: own
//! lists, own cache, no installed packages, any architecture. In: the machine's
//! own sources (so no mirror is named here), a kernel. Out: its packages, checked
//! by apt against the archive's signature, or where its keys are not installed against
//! recorded sums, in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::Obstacle;
use super::list::{Kernel, parse_version};
use super::room;
use super::sums::{self, Sum};
use crate::arch::Arch;
use crate::process::{display, output, run, say};

/// Where kernels from 5.10 on are found.
const SUITES: [&str; 5] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];

/// The archive's own keys, where the distribution puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archive, for one architecture.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    arch: Arch,
    names: Vec<String>,
}

/// A kernel that the archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `uname -r`.
    pub release: String,
    /// The packages that hold image and modules.
    pub packages: Vec<String>,
}

impl Archive {
    /// Opens it; the lists are fetched if they are older than a day, and old ones
    /// are good enough if that fails.
    pub fn open(cache: &Path, arch: Arch) -> anyhow::Result<Self> {
        let dir = cache.join("apt").join(arch.debian());
        for folder in ["lists/partial", "archives/partial", "empty"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("status", "")?;
        write("apt.conf", &configuration(&dir, arch))?;
        let mut archive = Archive {
            dir: dir.clone(),
            arch,
            names: Vec::new(),
        };
        if !archive.is_fresh() {
            if !has_keys() {
                say(format!(
                    "no keys of the archive ({KEYRING}): packages are held against \
                     tests/KERNELS.sha256"
                ));
            }
            write("sources.list", &sources_of(&mirror()?, has_keys()))?;
            archive.names = archive.known()?;
            let complaint = match room::require(&dir, room::LISTS, "the archive's lists") {
                Ok(()) => archive.update()?,
                Err(err) if !archive.names.is_empty() => Some(format!("{err:#}")),
                Err(err) => return Err(err),
            };
            archive.names = archive.known()?;
            match complaint {
                None => write(fetched_mark(), "")?,
                // The next run asks again.
                Some(complaint) if !archive.names.is_empty() => {
                    say(format!(
                        "{complaint}; going on with the lists that are here"
                    ));
                }
                Some(complaint) if is_out_of_reach(&complaint) => {
                    return Err(Obstacle::NoArchive(complaint).into());
                }
                Some(complaint) => bail!("ask the archive: {complaint}"),
            }
        } else {
            archive.names = archive.known()?;
        }
        Ok(archive)
    }

    /// Fetches the lists; what apt complained of first, if it could not.
    fn update(&self) -> anyhow::Result<Option<String>> {
        say(format!(
            "apt: lists of kernels for {} (own folder, nothing is installed)",
            self.arch.name()
        ));
        let mut command = self.apt("apt-get");
        let output = command.args(["-qq", "update"]).output();
        let output = output.with_context(|| format!("run {}", display(&command)))?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.starts_with("E: "));
        Ok(Some(first.unwrap_or(said.trim()).to_owned()))
    }

    fn known(&self) -> anyhow::Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn is_fresh(&self) -> bool {
        let fetched = self.dir.join(fetched_mark()).metadata();
        let age = fetched
            .and_then(|meta| meta.modified())
            .map(|time| time.elapsed());
        matches!(age, Ok(Ok(age)) if age.as_secs() < 24 * 3600)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        // Its complaints are told apart below.
        command.env("LC_ALL", "C");
        command
    }

    /// The newest kernel of that version.
    pub fn find(&self, kernel: &Kernel) -> anyhow::Result<Found> {
        find(&self.names, kernel, self.arch)
    }

    /// The packages' files in the cache, fetched unless they are there.
    pub fn fetch(&self, found: &Found) -> anyhow::Result<Vec<PathBuf>> {
        let archives = self.dir.join("archives");
        let missing: Vec<&String> = found
            .packages
            .iter()
            .filter(|package| find_file(&archives, package).is_none())
            .collect();
        if !missing.is_empty() {
            room::require(&archives, room::KERNEL, &found.release)?;
            say(format!("apt: fetching {}", found.packages.join(", ")));
            // It goes on with what an earlier, interrupted run has left.
            run(self
                .apt("apt-get")
                .args(["-qq", "download"])
                .args(&missing)
                .current_dir(&archives))
            .with_context(|| format!("fetch {}", found.packages.join(", ")))?;
        }
        let file_of = |package: &String| {
            find_file(&archives, package)
                .with_context(|| format!("apt fetched {package}, and it is not there"))
        };
        let files: Vec<PathBuf> = (found.packages.iter().map(file_of)).collect::<Result<_, _>>()?;
        if !has_keys() {
            let path = sums::path();
            let text = fs::read_to_string(&path);
            let recorded = sums::parse(&text.with_context(|| format!("read {}", path.display()))?)?;
            for (package, file) in found.packages.iter().zip(&files) {
                let good = sums::require(&recorded, package, file);
                if good.is_err() {
                    // Nobody shall find it here once the keys are installed.
                    let _ = fs::remove_file(file);
                }
                good?;
            }
        }
        Ok(files)
    }

    /// What the archive's index, whose signature apt has checked, says of packages.
    pub fn sums_of(&self, found: &Found) -> anyhow::Result<Vec<Sum>> {
        if !has_keys() {
            bail!(
                "record sums: no keys of the archive ({KEYRING}): install debian-archive-keyring"
            );
        }
        let one = |package: &String| {
            let mut command = self.apt("apt-cache");
            let shown = output(command.args(["show", "--no-all-versions", package]))?;
            sums::of_index(package, &shown)
        };
        found.packages.iter().map(one).collect()
    }
}

/// Whether apt's complaint is of the way to the archive, not of what it found there.
fn is_out_of_reach(complaint: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Unable to connect",
        "Cannot initiate the connection",
        "Connection failed",
        "onnection timed out",
    ];
    SIGNS.iter().any(|sign| complaint.contains(sign))
}

fn find_file(archives: &Path, package: &str) -> Option<PathBuf> {
    let begin = format!("{package}_");
    fs::read_dir(archives).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        (name.starts_with(&begin) && name.ends_with(".deb")).then(|| entry.path())
    })
}

/// Nothing of the machine's own state is read or written. A list that cannot be
/// fetched is an error: by default apt warns of it and succeeds.
fn configuration(dir: &Path, arch: Arch) -> String {
    let dir = dir.display();
    let arch = arch.debian();
    format!(
        "Dir::State \"{dir}\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::State::status \"{dir}/status\";\n\
         Dir::Cache \"{dir}\";\n\
         Dir::Etc::sourcelist \"{dir}/sources.list\";\n\
         Dir::Etc::sourceparts \"{dir}/empty\";\n\
         Dir::Etc::preferencesparts \"{dir}/empty\";\n\
         APT::Architecture \"{arch}\";\n\
         APT::Architectures {{ \"{arch}\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n"
    )
}

fn has_keys() -> bool {
    Path::new(KEYRING).exists()
}

/// Stands in the folder of lists that are there; those that nobody has signed for are
/// of no use once the keys are installed.
fn fetched_mark() -> &'static str {
    match has_keys() {
        true => "fetched",
        false => "fetched-unsigned",
    }
}

/// Without keys apt is to trust the lists: what they lead to is held against recorded
/// sums.
fn sources_of(mirror: &str, has_keys: bool) -> String {
    let how = match has_keys {
        true => format!("signed-by={KEYRING}"),
        false => "trusted=yes".to_owned(),
    };
    SUITES
        .iter()
        .map(|suite| format!("deb [{how}] {mirror} {suite} main\n"))
        .collect()
}

/// The mirror that this machine's own apt uses.
pub fn mirror() -> anyhow::Result<String> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(CREATED_BY)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format]))
        .context("ask apt for its sources")?;
    parse_mirror(&targets).context("apt on this machine has no source of Debian's main archive")
}

fn parse_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            ["Debian", "Debian", uri, "Packages"] => Some(uri.trim_end_matches('/').to_owned()),
            _ => None,
        }
    })
}

fn find(names: &[String], kernel: &Kernel, arch: Arch) -> anyhow::Result<Found> {
    let asked = parse_version(&kernel.version)?;
    let end = match &*kernel.flavour {
        "generic" => format!("-{}", arch.debian()),
        flavour => format!("-{flavour}-{}", arch.debian()),
    };
    let releases = names.iter().filter_map(|name| {
        let release = name
            .strip_prefix("linux-image-")
            .or_else(|| name.strip_prefix("linux-binary-"))?;
        // `6.12.95+deb12`, `5.10.0-32`
        let version = release.strip_suffix(&end)?;
        let is_plain = version.chars().all(|c| {
            c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '~') || "debpo".contains(c)
        });
        let numbers = numbers_of(version);
        (is_plain && numbers.starts_with(&asked)).then_some((numbers, release))
    });
    let (_, release) = releases.max().with_context(|| {
        format!(
            "the archive has no kernel {} ({}) for {}",
            kernel.version,
            kernel.flavour,
            arch.name()
        )
    })?;
    let has = |name: &String| names.iter().any(|known| known == name);
    // From 6.19 on the image is split in two, and linux-image only asks for both.
    // Of releases that were replaced, an archive may keep the first alone.
    let binary = format!("linux-binary-{release}");
    let modules = format!("linux-modules-{release}");
    let packages = match has(&binary) {
        true => [binary, modules].into_iter().filter(has).collect(),
        false => vec![format!("linux-image-{release}")],
    };
    Ok(Found {
        release: release.to_owned(),
        packages,
    })
}

/// `6.12.95+deb12` → 6, 12, 95, 12.
fn numbers_of(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(version: &str, flavour: &str) -> Kernel {
        Kernel {
            version: version.into(),
            flavour: flavour.into(),
            is_late: false,
            is_ci: false,
        }
    }

    #[test]
    fn an_archive_out_of_reach_is_told_from_one_that_is_wrong() {
        let begin = "E: Failed to fetch http://a/debian/dists/bullseye/InRelease  ";
        for why in [
            "Temporary failure resolving 'a'",
            "Could not connect to a:80 (192.0.2.1), connection timed out",
        ] {
            assert!(is_out_of_reach(&format!("{begin}{why}")), "{why}");
        }
        for why in [
            "404  Not Found",
            "Clearsigned file isn't valid, got 'NOSPLIT'",
        ] {
            assert!(!is_out_of_reach(&format!("{begin}{why}")), "{why}");
        }
    }

    #[test]
    fn the_newest_release_of_a_version_is_taken_by_number() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-dbg",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-amd64",
            "linux-image-cloud-amd64",
        ]
        .map(str::to_owned);
        let find = |version, flavour| {
            find(&names, &kernel(version, flavour), Arch::X86_64).map(|found| found.release)
        };
        assert_eq!(find("6.1", "cloud").unwrap(), "6.1.0-50-cloud-amd64");
        assert_eq!(find("6.12", "cloud").unwrap(), "6.12.117+deb13-cloud-amd64");
        assert_eq!(
            find("6.12.95", "cloud").unwrap(),
            "6.12.95+deb12-cloud-amd64"
        );
        assert_eq!(find("6.1", "generic").unwrap(), "6.1.0-50-amd64");
        let err = find("6.13", "cloud").unwrap_err();
        assert_eq!(
            err.to_string(),
            "the archive has no kernel 6.13 (cloud) for x86_64"
        );
    }

    #[test]
    fn a_split_kernel_is_two_packages() {
        let names = [
            "linux-image-7.3.4+deb13-cloud-arm64",
            "linux-binary-7.3.4+deb13-cloud-arm64",
            "linux-modules-7.3.4+deb13-cloud-arm64",
        ]
        .map(str::to_owned);
        let found = find(&names, &kernel("7.3", "cloud"), Arch::Aarch64).unwrap();
        assert_eq!(
            found.packages,
            [
                "linux-binary-7.3.4+deb13-cloud-arm64",
                "linux-modules-7.3.4+deb13-cloud-arm64"
            ]
        );
    }

    #[test]
    fn an_image_without_its_modules_is_taken_alone() {
        let names = [
            "linux-image-7.0.13+deb13-cloud-amd64",
            "linux-binary-7.0.13+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        let found = find(&names, &kernel("7.0", "cloud"), Arch::X86_64).unwrap();
        assert_eq!(found.packages, ["linux-binary-7.0.13+deb13-cloud-amd64"]);
    }

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "Vendor|x|http://vendor.test/|Packages\n\
                       Debian|Debian-Security|http://mirror.test/security/|Packages\n\
                       Debian|Debian|http://mirror.test/debian/|Translations\n\
                       Debian|Debian|http://mirror.test/debian/|Packages\n";
        let mirror = parse_mirror(targets).unwrap();
        assert_eq!(mirror, "http://mirror.test/debian");
        let sources = sources_of(&mirror, true);
        assert!(sources.contains("] http://mirror.test/debian trixie-backports main\n"));
        assert!(!sources.contains("trusted"));
        assert!(sources_of(&mirror, false).contains("deb [trusted=yes] http://mirror.test"));
        assert_eq!(parse_mirror(""), None);
    }
}
