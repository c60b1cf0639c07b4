//! Runs `fsyncscope check` in the guest: as it is, with facts broken on purpose, and
//! from BTF alone. In: the machine. Out: its reports, and assertions about them, which
//! are `hooks`'s.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::{Value, json};

use super::cells::{DATA_DIR, Machine};
use super::expect::{self, Evidence};
use super::fault::Fault;
use super::hooks;
use super::protocol::{AGENT_PATH, Assertion, CellResult, FromGuest};

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Those whose BTF the agent asks where they are modules.
const MODULES: [&str; 5] = ["jbd2", "ext4", "xfs", "btrfs", "nvme_core"];

impl Machine {
    /// `check --json`, once: which form each hook has on this kernel.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.host.progress("check …")?;
        let said = self.run_check(&[])?;
        self.said_of_hooks = said.clone();
        self.host.say(&FromGuest::Check { said })
    }

    fn run_check(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(agent_on_disk()?)
            .args(["check", "--json"])
            .args(args)
            .args(&self.plan.agent_args)
            .stdin(Stdio::null())
            .output()
            .context("run check")?;
        let mut said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if !said.is_object() {
            // Told to the host as what it is: no report.
            let text = String::from_utf8_lossy(&output.stderr);
            said = json!({ "error": text.trim() });
        }
        said["exit_code"] = output.status.code().into();
        Ok(said)
    }

    /// What BTF alone says of the kernel that runs.
    fn check_by_btf(&self) -> anyhow::Result<Value> {
        let mut args = vec!["--btf".to_owned(), KERNEL_BTF.to_owned()];
        for module in MODULES {
            let path = Path::new(KERNEL_BTF).with_file_name(module);
            if path.exists() {
                args.push("--btf-module".to_owned());
                args.push(format!("{module}={}", path.display()));
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run_check(&args)
    }

    /// Of a healthy machine: what `check` said of its hooks, and that BTF alone says it
    /// as well.
    pub fn compare_checks(&self, evidence: &Evidence) -> anyhow::Result<Vec<Assertion>> {
        let (live, args) = (&self.said_of_hooks, &self.plan.agent_args);
        let mut asserts = hooks::compare_forms(live, args);
        asserts.push(hooks::compare_best(live, args, evidence));
        asserts.push(hooks::compare_preemption(live, evidence));
        if args.is_empty() {
            asserts.extend(hooks::compare_btf(live, &self.check_by_btf()?));
        }
        Ok(asserts)
    }

    /// The agent is told to believe a BTF that is wrong.
    pub fn run_broken_fact(&self) -> anyhow::Result<CellResult> {
        const BROKEN: &str = "/tmp/broken.btf";
        let btf = std::fs::read(KERNEL_BTF).with_context(|| format!("read {KERNEL_BTF}"))?;
        std::fs::write(BROKEN, hooks::break_facts(btf.clone())?)?;
        let said = self.run_check(&["--test-btf", BROKEN])?;
        let mut asserts = hooks::compare_broken(&said);
        // And fexit of fsync is led to another function: attached, it never fires.
        if hooks::form_of(&self.said_of_hooks, "fsync") == "fexit" {
            std::fs::write(BROKEN, hooks::mislead_fexit(btf)?)?;
            let said = self.run_check(&["--test-btf", BROKEN])?;
            asserts.extend(hooks::compare_misled(&said));
        }
        std::fs::remove_file(BROKEN)?;
        let (outcome, why) = expect::conclude(&asserts);
        Ok(CellResult {
            id: Fault::BrokenFact,
            outcome,
            asserts,
            why,
            took_ms: 0,
            said: vec![said],
        })
    }
}

/// `check` proves its hooks by a sync and a read of the agent's own binary: it must
/// lie on the disk, where requests are made, not in the initramfs.
fn agent_on_disk() -> anyhow::Result<PathBuf> {
    let path = Path::new(DATA_DIR).join("fsyncscope");
    if !path.exists() {
        std::fs::copy(AGENT_PATH, &path).context("copy the agent to the disk")?;
        std::fs::File::open(&path)?.sync_all()?;
    }
    Ok(path)
}
