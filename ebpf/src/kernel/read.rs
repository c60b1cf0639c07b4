//! Reading kernel memory, in two ways that hooks are generic over: a helper
//! call that works in every program type, and a plain load that only typed
//! programs (tp_btf, fentry, fexit) may make, and that costs a tenth.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use fsyncscope_abi::loss::Loss;

use crate::maps::lost;

/// A kernel address.
pub type Addr = u64;

/// A way of reading.
pub trait Mem {
    /// Addresses are pointers typed by the verifier: no arithmetic on them but
    /// constant offsets.
    const IS_TYPED: bool;
    /// Eight bytes at `base + offset`, 0 if unreadable.
    fn u64(base: Addr, offset: u32) -> u64;
    /// The same of what may be no pointer at all: a fault is no loss.
    fn guess(base: Addr, offset: u32) -> u64;
    /// Four bytes.
    fn u32(base: Addr, offset: u32) -> u32;
    /// Two bytes.
    fn u16(base: Addr, offset: u32) -> u16;
}

/// The same address, as a value of its own to the compiler. A map's key lies on the
/// stack, and to verifiers before 6.14 what a helper has read there is no pointer any
/// more: the compiler must not take a typed pointer back from a key.
#[inline(always)]
pub fn key_of(addr: Addr) -> Addr {
    let key;
    // SAFETY: a move. An empty text would give two lines of debug information to one
    // instruction, which the kernel refuses.
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) key, in(reg) addr, options(nostack, nomem, pure));
    }
    key
}

/// Through `bpf_probe_read_kernel`.
pub struct Probe;

/// Reads `T`; a fault is counted and gives zero.
#[inline(always)]
pub fn probe<T: Copy + Default>(base: Addr, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the helper writes size_of::<T>() bytes to `value` or fails; T is a
    // plain integer.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        )
    };
    if failed != 0 {
        lost(Loss::ReadFault);
    }
    value
}

/// Reads bytes to where they shall lie; a fault is counted, and false.
#[inline(always)]
pub fn probe_into<const LEN: usize>(base: Addr, offset: u32, to: &mut [u8; LEN]) -> bool {
    // SAFETY: the helper writes LEN bytes to `to` or fails.
    let failed = unsafe {
        bpf_probe_read_kernel(
            to.as_mut_ptr().cast(),
            LEN as u32,
            (base + u64::from(offset)) as *const _,
        )
    };
    if failed != 0 {
        lost(Loss::ReadFault);
    }
    failed == 0
}

impl Mem for Probe {
    const IS_TYPED: bool = false;

    #[inline(always)]
    fn u64(base: Addr, offset: u32) -> u64 {
        probe(base, offset)
    }
    #[inline(always)]
    fn guess(base: Addr, offset: u32) -> u64 {
        let mut value = 0_u64;
        // SAFETY: the helper writes eight bytes to `value`, or zeroes them and fails.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<u64>() as u32,
                (base + u64::from(offset)) as *const _,
            );
        }
        value
    }
    #[inline(always)]
    fn u32(base: Addr, offset: u32) -> u32 {
        probe(base, offset)
    }
    #[inline(always)]
    fn u16(base: Addr, offset: u32) -> u16 {
        probe(base, offset)
    }
}

/// By plain loads from pointers that the verifier has typed by BTF. A fault
/// reads zero (the kernel's exception table).
pub struct Typed;

impl Mem for Typed {
    const IS_TYPED: bool = true;

    #[inline(always)]
    fn guess(base: Addr, offset: u32) -> u64 {
        Self::u64(base, offset)
    }

    #[inline(always)]
    fn u64(base: Addr, offset: u32) -> u64 {
        // SAFETY: the verifier proves that base is a typed kernel pointer and
        // the offset a field of eight bytes.
        unsafe { core::ptr::read_volatile((base as *const u8).add(offset as usize).cast()) }
    }
    #[inline(always)]
    fn u32(base: Addr, offset: u32) -> u32 {
        // SAFETY: as above, four bytes.
        unsafe { core::ptr::read_volatile((base as *const u8).add(offset as usize).cast()) }
    }
    #[inline(always)]
    fn u16(base: Addr, offset: u32) -> u16 {
        // SAFETY: as above, two bytes.
        unsafe { core::ptr::read_volatile((base as *const u8).add(offset as usize).cast()) }
    }
}
