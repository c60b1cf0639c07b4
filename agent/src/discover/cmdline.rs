//! Recognises a Kafka broker by its command line. In: argv. Out:
//! [`KafkaCommand`] with the properties file, the logging settings and allowed
//! overrides. Pure; argv itself is not kept, it may hold passwords.

use std::collections::BTreeMap;

use super::properties::is_allowed;

/// What a broker's command line tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KafkaCommand {
    /// Main class, jar or native program.
    pub main: String,
    /// server.properties, as given.
    pub properties_file: Option<String>,
    /// `--override` pairs whose key is allowed.
    pub overrides: BTreeMap<String, String>,
    /// `-Dkafka.logs.dir`.
    pub logs_dir: Option<String>,
    /// `-Dlog4j.configuration`, `-Dlog4j2.configurationFile`, without `file:`.
    pub log_config: Option<String>,
    /// `-Duser.timezone`.
    pub timezone: Option<String>,
    /// From `kafka_2.13-3.9.2.jar` in the class path.
    pub version: Option<String>,
    /// Doubts.
    pub notes: Vec<String>,
}

const MAIN_CLASSES: &[&str] = &[
    "kafka.Kafka",
    "kafka.docker.KafkaDockerWrapper",
    "io.confluent.support.metrics.SupportedKafka",
];
/// JVM options that take the next word as their value.
const WITH_VALUE: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--add-opens",
    "--add-exports",
    "--add-reads",
    "--limit-modules",
    "--patch-module",
    "--source",
];
const NATIVE: &[&str] = &[
    "kafka.Kafka",
    "kafka-native",
    "kafka.docker.KafkaDockerWrapper",
];

/// Reads argv; `None` if it is no broker's.
#[must_use]
pub fn parse_cmdline(argv: &[&str]) -> Option<KafkaCommand> {
    let program = argv.first()?.rsplit('/').next()?;
    let mut command = KafkaCommand::default();
    if NATIVE.contains(&program) {
        command.main = program.to_owned();
        read_properties(&mut command, argv);
        read_arguments(&mut command, &argv[1..]);
        return Some(command);
    }
    if !["java", "jsvc", "kafka"]
        .iter()
        .any(|name| program.contains(name))
    {
        return None;
    }
    let mut class_path = "";
    let mut at = 1;
    while at < argv.len() {
        let word = argv[at];
        if word == "-jar" || word == "-m" || word == "--module" {
            at += 1;
            break;
        }
        if WITH_VALUE.contains(&word) {
            at += 1;
            if matches!(word, "-cp" | "-classpath" | "--class-path") {
                class_path = argv.get(at).copied().unwrap_or("");
            }
        } else if let Some(path) = word.strip_prefix("--class-path=") {
            class_path = path;
        } else if !word.starts_with('-') && !word.starts_with('@') {
            break;
        }
        at += 1;
    }
    let main = *argv.get(at)?;
    let arguments = &argv[at + 1..];
    let base = main.rsplit('/').next().unwrap_or(main);
    let has_jar = version_in(class_path).is_some() || version_in(base).is_some();
    let known = MAIN_CLASSES.contains(&main);
    if !known {
        // A start through one's own class: Kafka's jar and a bare properties
        // file, but none of the tools that ship in the same jar.
        let is_tool = ["kafka.", "org.apache.kafka."]
            .iter()
            .any(|prefix| main.starts_with(prefix));
        let is_server = arguments
            .first()
            .is_some_and(|word| word.ends_with(".properties"));
        if is_tool || !has_jar || !is_server {
            return None;
        }
        command.notes.push(format!(
            "main class {main} is not known, taken for a broker by kafka's jar"
        ));
    }
    command.main = main.to_owned();
    command.version = version_in(class_path).or_else(|| version_in(base));
    read_properties(&mut command, &argv[1..at]);
    read_arguments(&mut command, arguments);
    Some(command)
}

/// The `-D` settings that matter.
fn read_properties(command: &mut KafkaCommand, words: &[&str]) {
    for word in words {
        let Some((key, value)) = word
            .strip_prefix("-D")
            .and_then(|pair| pair.split_once('='))
        else {
            continue;
        };
        let slot = match key {
            "kafka.logs.dir" => &mut command.logs_dir,
            "log4j.configuration" | "log4j.configurationFile" | "log4j2.configurationFile" => {
                &mut command.log_config
            }
            "user.timezone" => &mut command.timezone,
            _ => continue,
        };
        let path = value.strip_prefix("file:").unwrap_or(value);
        // `file:///etc/x` is the same as `file:/etc/x`.
        let path = if path.starts_with("//") {
            path.trim_start_matches("//")
        } else {
            path
        };
        *slot = Some(if value.starts_with("file://") {
            format!("/{}", path.trim_start_matches('/'))
        } else {
            path.to_owned()
        });
    }
}

fn read_arguments(command: &mut KafkaCommand, words: &[&str]) {
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word == "--override" {
            keep_override(command, words.next().unwrap_or(""));
        } else if let Some(pair) = word.strip_prefix("--override=") {
            keep_override(command, pair);
        } else if word == "--config" {
            command.properties_file = words.next().map(str::to_owned);
        } else if !word.starts_with('-') && command.properties_file.is_none() && word != "start" {
            command.properties_file = Some(word.to_owned());
        }
    }
}

fn keep_override(command: &mut KafkaCommand, pair: &str) {
    if let Some((key, value)) = pair
        .split_once('=')
        .filter(|(key, _)| is_allowed(key.trim()))
    {
        command
            .overrides
            .insert(key.trim().to_owned(), value.trim().to_owned());
    }
}

/// The version in `kafka_2.13-3.9.2.jar`, wherever it stands.
pub(super) fn version_in(text: &str) -> Option<String> {
    text.split([':', '/']).find_map(|name| {
        let rest = name.strip_prefix("kafka_2.")?.strip_suffix(".jar")?;
        let version = rest.split_once('-')?.1;
        version
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_start_is_read() {
        let command = parse_cmdline(&[
            "/usr/bin/java",
            "-Xmx256m",
            "-Dkafka.logs.dir=/opt/kafka/logs",
            "-Dlog4j.configuration=file:///etc/kafka/log4j.properties",
            "-Djavax.net.ssl.keyStorePassword=geheim",
            "-cp",
            "/opt/libs/a.jar:/opt/libs/kafka_2.13-3.9.2.jar",
            "kafka.Kafka",
            "/etc/kafka/server.properties",
            "--override",
            "log.dirs=/x",
            "--override",
            "ssl.key.password=geheim",
        ])
        .unwrap();
        assert_eq!(
            command.properties_file.as_deref(),
            Some("/etc/kafka/server.properties")
        );
        assert_eq!(command.logs_dir.as_deref(), Some("/opt/kafka/logs"));
        assert_eq!(
            command.log_config.as_deref(),
            Some("/etc/kafka/log4j.properties")
        );
        assert_eq!(command.version.as_deref(), Some("3.9.2"));
        assert_eq!(command.overrides["log.dirs"], "/x");
        assert!(!format!("{command:?}").contains("geheim"));
    }

    #[test]
    fn native_image_and_confluent_are_known() {
        let native = parse_cmdline(&[
            "/opt/kafka/kafka.Kafka",
            "start",
            "--config",
            "/c/server.properties",
            "-Dkafka.logs.dir=/l",
        ])
        .unwrap();
        assert_eq!(
            native.properties_file.as_deref(),
            Some("/c/server.properties")
        );
        assert_eq!(native.logs_dir.as_deref(), Some("/l"));
        assert!(
            parse_cmdline(&[
                "java",
                "io.confluent.support.metrics.SupportedKafka",
                "/s.properties"
            ])
            .is_some()
        );
    }

    #[test]
    fn tools_and_other_programs_are_not_brokers() {
        for argv in [
            &[
                "java",
                "-cp",
                "kafka_2.13-3.9.2.jar",
                "kafka.tools.ConsoleConsumer",
                "c.properties",
            ][..],
            &[
                "java",
                "-cp",
                "kafka_2.13-3.9.2.jar",
                "org.apache.kafka.tools.ProducerPerformance",
                "--topic",
                "x",
            ],
            &["java", "-cp", "x.jar", "com.example.Main", "kafka.Kafka"],
            &["grep", "kafka.Kafka"],
            &["java"],
            &["java", "-cp"],
            &[],
        ] {
            assert_eq!(parse_cmdline(argv), None, "{argv:?}");
        }
    }

    #[test]
    fn own_main_class_is_taken_with_a_note() {
        let command = parse_cmdline(&[
            "java",
            "-cp",
            "/l/kafka_2.13-4.3.0.jar",
            "com.x.Start",
            "/s.properties",
        ])
        .unwrap();
        assert_eq!(command.version.as_deref(), Some("4.3.0"));
        assert_eq!(command.notes.len(), 1);
    }
}
