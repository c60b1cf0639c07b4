//! The files that a stock broker reads: server.properties, and the logging
//! configuration as the distribution ships it (log4j.properties to 3.x,
//! log4j2.yaml from 4.0). Pure: settings in, text out.

use super::{BrokerConfig, KafkaVersion};

/// The ports of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// Where clients connect.
    pub(super) plaintext: u16,
    /// Where the controller listens.
    pub(super) controller: u16,
}

pub(super) fn render_server_properties(config: &BrokerConfig, ports: Ports) -> String {
    let Ports {
        plaintext,
        controller,
    } = ports;
    let node_id = config.node_id;
    let log_dirs: Vec<_> = config
        .log_dirs
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id={node_id}\n\
         controller.quorum.voters={node_id}@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{plaintext},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plaintext}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={}\n\
         metadata.log.dir={}\n\
         num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n",
        log_dirs.join(","),
        config.meta_dir.display(),
    );
    for (key, value) in &config.properties {
        text += &format!("{key}={value}\n");
    }
    text
}

/// The file name, the system property that names it, and the text.
pub(super) fn render_logging(version: KafkaVersion) -> (&'static str, &'static str, String) {
    match version {
        KafkaVersion::V3_9 => ("log4j.properties", "log4j.configuration", render_log4j()),
        KafkaVersion::V4_3 => ("log4j2.yaml", "log4j2.configurationFile", render_log4j2()),
    }
}

const ROLLED: [(&str, &str); 4] = [
    ("kafkaAppender", "server.log"),
    ("stateChangeAppender", "state-change.log"),
    ("cleanerAppender", "log-cleaner.log"),
    ("controllerAppender", "controller.log"),
];

fn render_log4j() -> String {
    let mut text = String::from(
        "log4j.rootLogger=INFO, stdout, kafkaAppender\n\n\
         log4j.appender.stdout=org.apache.log4j.ConsoleAppender\n\
         log4j.appender.stdout.layout=org.apache.log4j.PatternLayout\n\
         log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n\n\n",
    );
    for (appender, file) in ROLLED {
        let head = format!("log4j.appender.{appender}");
        text += &format!(
            "{head}=org.apache.log4j.DailyRollingFileAppender\n\
             {head}.DatePattern='.'yyyy-MM-dd-HH\n\
             {head}.File=${{kafka.logs.dir}}/{file}\n\
             {head}.layout=org.apache.log4j.PatternLayout\n\
             {head}.layout.ConversionPattern=[%d] %p %m (%c)%n\n\n"
        );
    }
    text + "log4j.logger.kafka=INFO\n\
            log4j.logger.org.apache.kafka=INFO\n\
            log4j.logger.org.apache.kafka.controller=INFO, controllerAppender\n\
            log4j.additivity.org.apache.kafka.controller=true\n\
            log4j.logger.kafka.log.LogCleaner=INFO, cleanerAppender\n\
            log4j.additivity.kafka.log.LogCleaner=false\n\
            log4j.logger.state.change.logger=INFO, stateChangeAppender\n\
            log4j.additivity.state.change.logger=false\n"
}

fn render_log4j2() -> String {
    let mut text = String::from(
        "Configuration:\n\
         \x20 Properties:\n\
         \x20   Property:\n\
         \x20     - name: \"kafka.logs.dir\"\n\
         \x20       value: \".\"\n\
         \x20     - name: \"logPattern\"\n\
         \x20       value: \"[%d] %p %m (%c)%n\"\n\
         \x20 Appenders:\n\
         \x20   Console:\n\
         \x20     name: STDOUT\n\
         \x20     PatternLayout:\n\
         \x20       pattern: \"${logPattern}\"\n\
         \x20   RollingFile:\n",
    );
    for (appender, file) in ROLLED {
        let name = appender[..1].to_uppercase() + &appender[1..];
        text += &format!(
            "\x20     - name: {name}\n\
             \x20       fileName: \"${{sys:kafka.logs.dir}}/{file}\"\n\
             \x20       filePattern: \"${{sys:kafka.logs.dir}}/{file}.%d{{yyyy-MM-dd-HH}}\"\n\
             \x20       PatternLayout:\n\
             \x20         pattern: \"${{logPattern}}\"\n\
             \x20       TimeBasedTriggeringPolicy:\n\
             \x20         modulate: true\n\
             \x20         interval: 1\n"
        );
    }
    text + "\x20 Loggers:\n\
            \x20   Root:\n\
            \x20     level: INFO\n\
            \x20     AppenderRef:\n\
            \x20       - ref: STDOUT\n\
            \x20       - ref: KafkaAppender\n\
            \x20   Logger:\n\
            \x20     - name: kafka\n\
            \x20       level: INFO\n\
            \x20     - name: org.apache.kafka\n\
            \x20       level: INFO\n\
            \x20     - name: org.apache.kafka.controller\n\
            \x20       level: INFO\n\
            \x20       additivity: true\n\
            \x20       AppenderRef:\n\
            \x20         ref: ControllerAppender\n\
            \x20     - name: org.apache.kafka.storage.internals.log.LogCleaner\n\
            \x20       level: INFO\n\
            \x20       additivity: false\n\
            \x20       AppenderRef:\n\
            \x20         ref: CleanerAppender\n\
            \x20     - name: state.change.logger\n\
            \x20       level: INFO\n\
            \x20       additivity: false\n\
            \x20       AppenderRef:\n\
            \x20         ref: StateChangeAppender\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_name_all_log_dirs_and_the_extras() {
        let mut config = BrokerConfig::new(KafkaVersion::V3_9, "/w".into());
        config.log_dirs = vec!["/a".into(), "/b".into()];
        config.properties = vec![("log.flush.interval.messages".into(), "1".into())];
        let ports = Ports {
            plaintext: 9,
            controller: 10,
        };
        let text = render_server_properties(&config, ports);
        assert!(text.contains("log.dirs=/a,/b\n"));
        assert!(text.contains("log.flush.interval.messages=1\n"));
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:10\n"));
    }
}
