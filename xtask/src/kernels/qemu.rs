//! QEMU: is it there and new enough, and its command line. Software emulation, so
//! that any machine can run any kernel of either architecture. In: image,
//! initramfs, disk. Out: a running machine that ends with us, its console in a
//! file, a socket for the lines of the guest and one for QMP.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsyncscope_tests::guest::protocol::PORT;
use fsyncscope_tests::lab::Lab;
use fsyncscope_tests::proc;
use serde_json::{Value, json};

use super::image::Image;
use crate::arch::Arch;

/// The serial number of the disk.
pub const SERIAL: &str = "FSYNCSCOPE01";
/// QEMU's id of it.
pub const DISK_ID: &str = "disk0";

/// A running machine. Dropped, it is gone.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    dir: PathBuf,
}

impl Machine {
    /// Starts it. All its files lie in the folder.
    pub fn start(
        lab: &Lab,
        dir: &Path,
        image: &Image,
        initramfs: &Path,
        disk: &Path,
        broker_disk: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut command = lab.command(program(image.arch));
        command
            .args(arguments(dir, image, initramfs, disk))
            .args(broker_disk.map(broker_arguments).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("qemu.log"))?);
        let child =
            proc::spawn(command).with_context(|| format!("start {}", program(image.arch)))?;
        Ok(Machine {
            child,
            dir: dir.to_owned(),
        })
    }

    /// The guest's end of the line; QEMU makes the socket at once.
    pub fn connect(&mut self) -> anyhow::Result<UnixStream> {
        let socket = self.dir.join("line.sock");
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                return Ok(stream);
            }
            if self.is_over() || Instant::now() > until {
                bail!("QEMU did not start: {}", self.complaint());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Unplugs a device; returns when the guest has been asked.
    pub fn unplug(&self, id: &str) -> anyhow::Result<()> {
        let what = || format!("QMP: unplug {id}");
        let mut stream = UnixStream::connect(self.dir.join("qmp.sock")).with_context(what)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(stream.try_clone().with_context(what)?);
        let mut line = String::new();
        reader.read_line(&mut line).with_context(what)?;
        for command in [
            json!({"execute": "qmp_capabilities"}),
            json!({"execute": "device_del", "arguments": {"id": id}}),
        ] {
            writeln!(stream, "{command}").with_context(what)?;
            loop {
                line.clear();
                anyhow::ensure!(reader.read_line(&mut line)? > 0, "{}: no answer", what());
                let answer: Value = serde_json::from_str(&line).with_context(what)?;
                if let Some(why) = answer.pointer("/error/desc") {
                    bail!("{}: {why}", what());
                }
                // Events come in between.
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the guest's kernel printed.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(self.dir.join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn complaint(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        text.trim()
            .lines()
            .last()
            .unwrap_or("it said nothing")
            .to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = proc::end(&mut self.child, libc::SIGKILL, Duration::from_secs(10));
    }
}

/// What is started for an architecture.
pub const fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Aarch64 => "qemu-system-aarch64",
    }
}

fn arguments(dir: &Path, image: &Image, initramfs: &Path, disk: &Path) -> Vec<String> {
    let (machine, cpu, console) = match image.arch {
        Arch::X86_64 => ("q35", "max", "ttyS0"),
        // Signed pointers by a real hash would take most of the time.
        Arch::Aarch64 => ("virt", "max,pauth-impdef=on", "ttyAMA0"),
    };
    let dir = dir.display();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let text = format!(
        "-machine {machine} -accel tcg,thread=multi -cpu {cpu} -smp 2 -m 1024 \
         -nodefaults -no-user-config -display none -no-reboot \
         -serial file:{dir}/console.log \
         -qmp unix:{dir}/qmp.sock,server=on,wait=off \
         -chardev socket,id=line,path={dir}/line.sock,server=on,wait=off \
         -device virtio-serial-pci -device virtserialport,chardev=line,name={PORT} \
         -device pcie-root-port,id=port0,chassis=1 \
         -device nvme,id={DISK_ID},drive=drive0,serial={SERIAL},bus=port0"
    );
    let mut arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    // Errors go to the guest; the default would stop the machine on a full disk.
    let drive = format!(
        "file={},if=none,id=drive0,format=raw,cache=none,aio=threads,werror=report,rerror=report",
        path(disk)
    );
    let append = format!("console={console} panic=-1 loglevel=4");
    for pair in [
        ["-drive", &drive],
        ["-kernel", &path(&image.vmlinuz)],
        ["-initrd", &path(initramfs)],
        ["-append", &append],
    ] {
        arguments.extend(pair.map(str::to_owned));
    }
    arguments
}

/// A JVM and its disk beside what any guest has: the last `-m` counts.
fn broker_arguments(disk: &Path) -> Vec<String> {
    let drive = format!(
        "file={},if=none,id=drive1,format=raw,readonly=on",
        disk.display()
    );
    [
        "-m",
        "2048",
        "-drive",
        &drive,
        "-device",
        "virtio-blk-pci,drive=drive1",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// QEMU's version, or why it cannot be used.
pub fn require_usable(arch: Arch) -> anyhow::Result<()> {
    let program = program(arch);
    let said = crate::process::output(Command::new(program).arg("--version"))?;
    let version = parse_version(&said).with_context(|| format!("{program} --version: {said}"))?;
    refuse(program, version)
}

/// Whether this version is known to crash guests.
pub fn is_too_old(version: (u32, u32)) -> bool {
    version < (8, 0)
}

fn refuse(program: &str, (major, minor): (u32, u32)) -> anyhow::Result<()> {
    if is_too_old((major, minor)) {
        bail!(
            "{program} is version {major}.{minor}, which crashes guests with a 6.12 kernel: \
             version 8 or later is needed (Debian 12 has 10.0 in its backports)"
        );
    }
    Ok(())
}

/// `QEMU emulator version 10.0.2 (Debian …)` → 10, 0.
pub fn parse_version(said: &str) -> Option<(u32, u32)> {
    let rest = said.split("version ").nth(1)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_crashes_its_guests_is_refused_by_its_version() {
        let old = "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        let err = refuse("qemu-system-x86_64", parse_version(old).unwrap()).unwrap_err();
        assert!(err.to_string().contains("version 7.2"), "{err:#}");
        let new = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)";
        assert_eq!(parse_version(new), Some((10, 0)));
        assert!(refuse("qemu", (10, 0)).is_ok());
        assert_eq!(parse_version("no such thing"), None);
    }

    #[test]
    fn the_disk_is_one_that_can_be_unplugged_and_reports_errors() {
        let image = Image {
            version: "6.12".into(),
            release: "6.12.1".into(),
            arch: Arch::Aarch64,
            vmlinuz: "/k".into(),
            modules: Vec::new(),
        };
        let arguments = arguments(
            Path::new("/d"),
            &image,
            Path::new("/i"),
            Path::new("/d/disk"),
        );
        let text = arguments.join(" ");
        assert!(text.contains("-device nvme,id=disk0,drive=drive0,serial=FSYNCSCOPE01,bus=port0"));
        assert!(text.contains("file=/d/disk,") && text.contains("werror=report"));
        assert!(text.contains("console=ttyAMA0") && text.contains("pauth-impdef=on"));
    }
}
