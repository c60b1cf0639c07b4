//! Puts names to numbers: a path below a log.dir becomes topic-partition,
//! offset and kind; a device number becomes a disk with model and serial. In:
//! names from the kernel, sysfs, mountinfo. Out: [`KafkaFile`],
//! [`DeviceInfo`]. The path side is pure; the device side reads sysfs only.

pub mod device;
pub(crate) mod hardware;
pub mod mountinfo;
pub mod path;

pub use device::{ChainKind, DeviceInfo, DeviceLink, Leaf, resolve_device};
pub use hardware::{NvmePath, is_nvme_path};
pub use mountinfo::{Mount, find_mount, parse_mountinfo};
pub use path::{
    DirState, FileKind, FileState, KafkaFile, may_be_same_file, parse_kafka_path,
    parse_relative_path,
};
