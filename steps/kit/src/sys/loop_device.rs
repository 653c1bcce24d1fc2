//! Loop devices: block devices over files, loop(4).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

/// Clears the device when its last user closes it: no explicit step is
/// necessary, and none can fail (loop(4)).
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    lo_device: u64,
    lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// Returns the number of a free loop device, and makes one if necessary.
/// `control` is `/dev/loop-control`. Another process may take the device at any
/// moment.
pub fn get_free(control: BorrowedFd<'_>) -> nix::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    Errno::result(number).map(|number| number as u32)
}

/// Binds the loop device `device` to `file`, until its last user closes it.
///
/// # Errors
/// `EBUSY` if another process has taken the device: the caller tries again.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: a plain C structure for which all zeroes is valid.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    // SAFETY: the kernel reads the structure, which has the layout of its header.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) };
    Errno::result(done).map(drop)
}

/// The device number and the inode of the file below a loop device. `None` if
/// the device is not in use.
pub fn backing_file(device: BorrowedFd<'_>) -> nix::Result<Option<(u64, u64)>> {
    // SAFETY: as in `configure`.
    let mut info: LoopInfo64 = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one structure of that layout.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) };
    match Errno::result(done) {
        Ok(_) => Ok(Some((info.lo_device, info.lo_inode))),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}
