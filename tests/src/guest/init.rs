//! Process 1 of a virtual machine: sets it up, runs the plan, switches it off.
//! In: the initramfs (agent, modules, plan). Out: lines to the host; whatever
//! happens, the machine ends.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::broker;
use super::cells::Machine;
use super::fault::Fault;
use super::host::Host;
use super::protocol::{FromGuest, PLAN_PATH, PORT, Plan, Stage};
use super::system;

/// Never returns.
pub fn main() -> ! {
    if let Err(err) = run() {
        eprintln!("guest: error: {err:#}");
    }
    system::power_off()
}

fn run() -> anyhow::Result<()> {
    system::mount_all()?;
    system::open_console();
    let text = std::fs::read_to_string(PLAN_PATH).with_context(|| format!("read {PLAN_PATH}"))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("parse {PLAN_PATH}"))?;
    if plan.broker_disk.is_some() {
        broker::set_environment();
    }
    system::load_stage(Stage::First)?;
    let is_agent_first = plan.cells.contains(&Fault::LateModules);
    if !is_agent_first {
        system::load_stage(Stage::Disk)?;
    }
    let mut host = Host::open(&system::find_port(Path::new("/sys"), PORT)?)?;
    let (kernel, arch) = system::uname();
    host.say(&FromGuest::Hello {
        kernel: kernel.clone(),
        arch: arch.clone(),
    })?;
    let device = Path::new("/dev").join(&plan.disk.name);
    let there = match is_agent_first {
        true => Ok(()),
        false => system::wait_for_path(&device, Duration::from_secs(30)),
    };
    if let Err(err) = there {
        host.progress(&format!("error: {err:#}"))?;
        return Err(err);
    }
    let mut machine = Machine::new(host, plan, (kernel, arch))?;
    if let Err(err) = machine.run() {
        machine.host.progress(&format!("error: {err:#}"))?;
        return Err(err);
    }
    machine.host.say(&FromGuest::Done)
}
