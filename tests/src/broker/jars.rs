//! Kafka's jars: fetched once by Maven into a cache outside the tree. A marker
//! file, written last, says that a version is whole; without it the download
//! is done again. Where Maven fetches from is Maven's own configuration.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::BrokerError;

/// Environment variable that names the cache; see [`cache_dir`].
pub const CACHE_VARIABLE: &str = "FSYNCSCOPE_CACHE";

/// The Kafka versions that the lab runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KafkaVersion {
    /// 3.9.2, with log4j 1.
    V3_9,
    /// 4.3.0, with log4j 2.
    V4_3,
}

impl KafkaVersion {
    /// The version's number.
    pub fn number(self) -> &'static str {
        match self {
            KafkaVersion::V3_9 => "3.9.2",
            KafkaVersion::V4_3 => "4.3.0",
        }
    }

    /// The version that a person means by `3`, `3.9`, `4`, `4.3.0` and so on.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        [KafkaVersion::V3_9, KafkaVersion::V4_3]
            .into_iter()
            .find(|version| {
                let rest = version.number().strip_prefix(text);
                !text.is_empty()
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .with_context(|| format!("no Kafka {text} here: 3.9.2 and 4.3.0 are known"))
    }

    fn artefacts(self) -> &'static [(&'static str, &'static str, &'static str)] {
        const LOG4J2: &str = "org.apache.logging.log4j";
        match self {
            KafkaVersion::V3_9 => &[
                ("org.apache.kafka", "kafka_2.13", "3.9.2"),
                ("org.apache.kafka", "kafka-tools", "3.9.2"),
                ("org.slf4j", "slf4j-reload4j", "1.7.36"),
                ("ch.qos.reload4j", "reload4j", "1.2.25"),
            ],
            KafkaVersion::V4_3 => &[
                ("org.apache.kafka", "kafka_2.13", "4.3.0"),
                ("org.apache.kafka", "kafka-tools", "4.3.0"),
                (LOG4J2, "log4j-slf4j-impl", "2.24.3"),
                (LOG4J2, "log4j-core", "2.24.3"),
                (LOG4J2, "log4j-1.2-api", "2.24.3"),
                // Reads log4j2.yaml; the same version as Kafka's own jackson.
                (
                    "com.fasterxml.jackson.dataformat",
                    "jackson-dataformat-yaml",
                    "2.21.2",
                ),
            ],
        }
    }
}

/// The cache: `$FSYNCSCOPE_CACHE`, else `fsyncscope` in `$XDG_CACHE_HOME`, else
/// in `~/.cache`.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|dir| !dir.is_empty());
    if let Some(dir) = set(CACHE_VARIABLE) {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = set("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("fsyncscope"));
    }
    let home = set("HOME").context("find the cache: HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/fsyncscope"))
}

/// Makes sure that a version's jars are in the cache; returns them in order.
pub fn ensure(version: KafkaVersion) -> Result<Vec<PathBuf>, BrokerError> {
    find_program("java").ok_or(BrokerError::NoJava)?;
    let dir = cache_dir()?.join("kafka").join(version.number());
    let marker = dir.join("complete");
    if !marker.exists() {
        find_program("mvn").ok_or(BrokerError::NoMaven)?;
        download(version, &dir).map_err(BrokerError::Download)?;
        fs::write(&marker, "").map_err(|err| BrokerError::Other(err.into()))?;
    }
    Ok(list_jars(&dir)?)
}

fn list_jars(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut jars: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "jar"))
        .collect();
    jars.sort();
    Ok(jars)
}

fn download(version: KafkaVersion, dir: &Path) -> anyhow::Result<()> {
    // What an earlier, broken download has left may be broken as well.
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let pom = dir.join("pom.xml");
    fs::write(&pom, render_pom(version))?;
    eprintln!(
        "kafka {}: fetching about 56 MB of jars into {}",
        version.number(),
        dir.display()
    );
    let status = Command::new("mvn")
        .args(["-q", "-B", "-Dstyle.color=never", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", dir.display()))
        .arg("-DincludeScope=runtime")
        .stdin(Stdio::null())
        // Standard output belongs to the caller's result.
        .stdout(std::io::stderr())
        .status()
        .context("run mvn")?;
    anyhow::ensure!(status.success(), "run mvn: {status}");
    let jars = list_jars(dir)?.len();
    anyhow::ensure!(jars > 50, "mvn succeeded but left {jars} jars");
    eprintln!("kafka {}: {jars} jars", version.number());
    Ok(())
}

fn render_pom(version: KafkaVersion) -> String {
    let mut pom = String::from(concat!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">",
        "<modelVersion>4.0.0</modelVersion>\n",
        "<groupId>fsyncscope</groupId><artifactId>lab-kafka</artifactId>",
        "<version>1</version><packaging>pom</packaging>\n<dependencies>\n"
    ));
    for (group, artefact, number) in version.artefacts() {
        pom += &format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artefact}</artifactId>\
             <version>{number}</version></dependency>\n"
        );
    }
    pom + "</dependencies></project>\n"
}

/// A program on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_by_any_prefix_of_whole_parts() {
        let number = |text| KafkaVersion::parse(text).map(KafkaVersion::number).ok();
        assert_eq!(number("3"), Some("3.9.2"));
        assert_eq!(number("3.9"), Some("3.9.2"));
        assert_eq!(number("4.3.0"), Some("4.3.0"));
        assert_eq!(number("4.30"), None);
        assert_eq!(number(""), None);
    }

    #[test]
    fn the_pom_names_each_artefact() {
        let pom = render_pom(KafkaVersion::V4_3);
        assert_eq!(pom.matches("<dependency>").count(), 6);
        assert!(pom.contains("<artifactId>kafka_2.13</artifactId><version>4.3.0</version>"));
    }
}
