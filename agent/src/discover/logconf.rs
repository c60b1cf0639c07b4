//! Finds the files that a logging configuration writes (log4j properties,
//! log4j2 YAML, XML or properties). In: the text and kafka.logs.dir. Out:
//! paths, the likeliest server log first. Pure; a line scan, no full parser:
//! the open descriptors of the process are the cross-check.

/// Paths of file appenders in `text`, the likeliest first.
#[must_use]
pub fn log_files(text: &str, logs_dir: Option<&str>) -> Vec<String> {
    let root = root_appenders(text);
    let mut found: Vec<(u8, String)> = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', '!']))
    {
        let Some(value) = file_value(line) else {
            continue;
        };
        let Some(path) = resolve(&value, logs_dir) else {
            continue;
        };
        let owner = line.split(['.', '=']).nth(2).unwrap_or("").trim();
        let rank = if path.ends_with("/server.log") {
            0
        } else if line.starts_with("log4j.appender.") && root.iter().any(|name| name == owner) {
            1
        } else {
            2
        };
        if !found.iter().any(|(_, known)| *known == path) {
            found.push((rank, path));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    // Without a root appender or the usual name it is anybody's guess.
    found
        .into_iter()
        .filter(|(rank, _)| *rank < 2)
        .map(|(_, path)| path)
        .collect()
}

/// log4j 1: `log4j.rootLogger=INFO, stdout, kafkaAppender`.
fn root_appenders(text: &str) -> Vec<String> {
    let line = text
        .lines()
        .map(str::trim)
        .find_map(|line| line.strip_prefix("log4j.rootLogger"))
        .unwrap_or("");
    let list = line.trim_start_matches([' ', '=', ':']).split(',').skip(1);
    list.map(|name| name.trim().to_owned()).collect()
}

/// The value of `….File=`, `fileName: "…"`, `fileName="…"`.
fn file_value(line: &str) -> Option<String> {
    if let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.contains('<')) {
        let key = key.trim();
        if (key.starts_with("log4j.appender.") && key.ends_with(".File"))
            || key.ends_with(".fileName")
        {
            return Some(value.trim().to_owned());
        }
    }
    let rest = line
        .split_once("fileName")?
        .1
        .trim_start()
        .strip_prefix([':', '='])?
        .trim_start();
    let end = |quote: char| rest[1..].find(quote).map(|end| rest[1..=end].to_owned());
    match rest.chars().next()? {
        '"' => end('"'),
        '\'' => end('\''),
        _ => rest.split_whitespace().next().map(str::to_owned),
    }
}

/// Replaces `${kafka.logs.dir}`, `${sys:kafka.logs.dir}`, with default or not;
/// another variable makes the path unknown.
fn resolve(value: &str, logs_dir: Option<&str>) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}')?;
        let name = name.strip_prefix("sys:").unwrap_or(name);
        let (name, default) = name
            .split_once(":-")
            .map_or((name, None), |(name, default)| (name, Some(default)));
        out.push_str(before);
        out.push_str(if name == "kafka.logs.dir" {
            logs_dir.or(default)?
        } else {
            default?
        });
        rest = tail;
    }
    out.push_str(rest);
    out.starts_with('/').then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log4j_properties_give_the_server_log() {
        let text = "log4j.rootLogger=INFO, stdout, kafkaAppender\n#log4j.appender.x.File=/no/server.log\n\
            log4j.appender.requestAppender.File=${kafka.logs.dir}/kafka-request.log\n\
            log4j.appender.kafkaAppender.File=${kafka.logs.dir}/server.log\n";
        assert_eq!(log_files(text, Some("/logs")), ["/logs/server.log"]);
        assert_eq!(log_files(text, None), [] as [&str; 0]);
    }

    #[test]
    fn root_appender_wins_under_another_name() {
        let text = "log4j.rootLogger = INFO, main\nlog4j.appender.aux.File=/l/aux.log\nlog4j.appender.main.File=/l/kafka.log\n";
        assert_eq!(log_files(text, None), ["/l/kafka.log"]);
    }

    #[test]
    fn log4j2_yaml_and_xml_give_the_server_log() {
        let yaml = "Appenders:\n  RollingFile:\n    - name: KafkaAppender\n      fileName: \"${sys:kafka.logs.dir}/server.log\"\n      filePattern: x\n";
        assert_eq!(log_files(yaml, Some("/l")), ["/l/server.log"]);
        let xml = "<RollingFile name=\"K\" fileName=\"${sys:kafka.logs.dir:-/var/log/kafka}/server.log\" filePattern=\"x\">";
        assert_eq!(log_files(xml, None), ["/var/log/kafka/server.log"]);
    }
}
