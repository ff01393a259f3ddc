//! Extended attributes and the ACLs among them: which of them are content of a snapshot, and how they are
//! read and set.
//!
//! An attribute that this process may not read is as if it were not there: an unprivileged snapshot lacks
//! `trusted.*`, it does not fail.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::{self, Errno};

use crate::beneath::descriptor_path;

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name with its namespace.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// What most values and lists fit into, to do with one call.
const FIRST_BYTES: usize = 1024;

/// The kernel's limit of a value and of a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The access ACL: it holds the mode's group bits, so it is set after the mode.
pub(crate) const ACL_PREFIX: &[u8] = b"system.posix_acl_";

/// Names that are no content. XFS shows each ACL a second time under its own name; the `btrfs.` properties
/// say how one filesystem keeps a file (compression); EVM signs an inode, and a signature is wrong on any
/// other; the rest of `system.` are views of things kept elsewhere.
pub(crate) fn is_content(name: &[u8]) -> bool {
    let alias: &[&[u8]] = &[b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT", b"security.evm"];
    if alias.contains(&name) {
        return false;
    }
    let space = name.split(|&byte| byte == b'.').next().unwrap_or_default();
    match space {
        b"user" | b"trusted" | b"security" => true,
        b"system" => name.starts_with(ACL_PREFIX) || name == b"system.nfs4_acl",
        _ => false,
    }
}

/// Where attributes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At<'a> {
    /// An ordinarily open file.
    Open(BorrowedFd<'a>),
    /// A name in an open folder, of a link itself; an empty name is the folder.
    Name(BorrowedFd<'a>, &'a CStr),
    /// A descriptor opened with `O_PATH`.
    Pinned(BorrowedFd<'a>),
}

impl At<'_> {
    /// The descriptor's own path is a magic link that must be followed, a name below it is not.
    fn with<T>(
        self,
        open: impl Fn(BorrowedFd<'_>) -> io::Result<T>,
        followed: impl Fn(&CStr) -> io::Result<T>,
        not_followed: impl Fn(&CStr) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            At::Open(fd) => open(fd),
            At::Pinned(fd) => followed(&descriptor_path(fd, b"")),
            At::Name(fd, name) if name.is_empty() => followed(&descriptor_path(fd, b"")),
            At::Name(fd, name) => not_followed(&descriptor_path(fd.as_fd(), name.to_bytes())),
        }
    }

    fn names_into(self, buffer: &mut [u8]) -> io::Result<usize> {
        use rustix::fs::{flistxattr, listxattr, llistxattr};
        let cell = std::cell::RefCell::new(buffer);
        self.with(
            |fd| flistxattr(fd, &mut **cell.borrow_mut()),
            |path| listxattr(path, &mut **cell.borrow_mut()),
            |path| llistxattr(path, &mut **cell.borrow_mut()),
        )
    }

    fn value_into(self, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
        use rustix::fs::{fgetxattr, getxattr, lgetxattr};
        let cell = std::cell::RefCell::new(buffer);
        self.with(
            |fd| fgetxattr(fd, name, &mut **cell.borrow_mut()),
            |path| getxattr(path, name, &mut **cell.borrow_mut()),
            |path| lgetxattr(path, name, &mut **cell.borrow_mut()),
        )
    }

    pub(crate) fn set(self, name: &CStr, value: &[u8]) -> io::Result<()> {
        use rustix::fs::{fsetxattr, lsetxattr, setxattr};
        let flags = XattrFlags::empty();
        self.with(
            |fd| fsetxattr(fd, name, value, flags),
            |path| setxattr(path, name, value, flags),
            |path| lsetxattr(path, name, value, flags),
        )
    }

    pub(crate) fn remove(self, name: &CStr) -> io::Result<()> {
        use rustix::fs::{fremovexattr, lremovexattr, removexattr};
        self.with(|fd| fremovexattr(fd, name), |path| removexattr(path, name), |path| lremovexattr(path, name))
    }

    /// All attributes that are content and readable, sorted by name.
    pub(crate) fn read(self) -> io::Result<Vec<Attribute>> {
        let mut attributes = Vec::new();
        let names = match grown(|buffer| self.names_into(buffer)) {
            Ok(names) => names,
            Err(error) if is_withheld(error) => return Ok(attributes),
            Err(error) => return Err(error),
        };
        for name in names.split(|&byte| byte == 0).filter(|name| is_content(name)) {
            let Ok(c_name) = CString::new(name) else { continue };
            match grown(|buffer| self.value_into(&c_name, buffer)) {
                Ok(value) => attributes.push(Attribute { name: name.to_vec(), value }),
                // Removed meanwhile, or not for this process to see.
                Err(error) if is_withheld(error) => {}
                Err(error) => return Err(error),
            }
        }
        attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(attributes)
    }
}

/// Whether the answer means "none that you can have" rather than a failing disk.
fn is_withheld(error: Errno) -> bool {
    matches!(
        error,
        Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::TOOBIG | Errno::INVAL
    )
}

/// Calls with a buffer that usually suffices, then with one that always does.
fn grown(call: impl Fn(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut first = [0; FIRST_BYTES];
    match call(&mut first) {
        Ok(length) => Ok(first[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; VALUE_BYTES_MAX];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_properties_are_no_content() {
        let content: &[&[u8]] =
            &[b"user.x", b"trusted.overlay.opaque", b"security.capability", b"system.posix_acl_access"];
        let none: &[&[u8]] =
            &[b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT", b"btrfs.compression", b"system.data", b""];
        assert!(content.iter().all(|name| is_content(name)));
        assert!(none.iter().all(|name| !is_content(name)));
    }
}
