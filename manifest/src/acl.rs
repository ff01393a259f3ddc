//! POSIX ACLs: bytes as Linux keeps them in attributes, told as text and as permission bits. Any bytes are
//! taken; what is no ACL is `None`.

/// The attribute with the ACL of a file or folder itself.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute with what a folder gives to what is made in it.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The only version that there is.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const ENTRY_BYTES: usize = 8;
const USER_OBJECT: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJECT: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// As archives keep it: entries behind each other with commas; users and groups by number, which stands a
/// second time at the end, where other programs look for it beside a name.
#[must_use]
pub fn text(value: &[u8]) -> Option<String> {
    let told = |entry: Entry| {
        let letter = |bit: u16, letter: char| if entry.permissions & bit == 0 { '-' } else { letter };
        let rights: String = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')].iter().collect();
        let id = entry.id;
        Some(match entry.tag {
            USER_OBJECT => format!("user::{rights}"),
            USER => format!("user:{id}:{rights}:{id}"),
            GROUP_OBJECT => format!("group::{rights}"),
            GROUP => format!("group:{id}:{rights}:{id}"),
            MASK => format!("mask::{rights}"),
            OTHER => format!("other::{rights}"),
            _ => return None,
        })
    };
    let entries: Vec<String> = entries(value)?.map(told).collect::<Option<_>>()?;
    if entries.is_empty() { None } else { Some(entries.join(",")) }
}

/// What the owning group may do, below the mask: the group's bits of a mode are the mask where there is one,
/// and would give the group more where the ACL is lost.
#[must_use]
pub fn owning_group(value: &[u8]) -> Option<u32> {
    let of = |tag: u16| entries(value)?.find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions & 7));
    Some(of(GROUP_OBJECT)? & of(MASK).unwrap_or(7))
}

fn entries(value: &[u8]) -> Option<impl Iterator<Item = Entry>> {
    let body = value.strip_prefix(&VERSION).filter(|body| body.len() % ENTRY_BYTES == 0)?;
    Some(body.chunks_exact(ENTRY_BYTES).map(|bytes| Entry {
        tag: u16::from_le_bytes([bytes[0], bytes[1]]),
        permissions: u16::from_le_bytes([bytes[2], bytes[3]]),
        id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }))
}

#[cfg(test)]
mod tests {
    //! Goal: the text is that of `getfacl`, with numbers. Method: bytes as `setfacl` makes them.

    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let bytes = entries.iter().map(|(tag, permissions, id)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        VERSION.to_vec().into_iter().chain(bytes.flatten()).collect()
    }

    #[test]
    fn an_acl_is_told() {
        let none = u32::MAX;
        let entries = [(1, 6, none), (2, 7, 1000), (4, 4, none), (8, 5, 50), (16, 7, none), (32, 0, none)];
        let told = "user::rw-,user:1000:rwx:1000,group::r--,group:50:r-x:50,mask::rwx,other::---";
        assert_eq!(text(&acl(&entries)).as_deref(), Some(told));
        assert_eq!(owning_group(&acl(&entries)), Some(4));
        assert_eq!(owning_group(&acl(&[(4, 7, none), (16, 5, none)])), Some(5));
        assert_eq!(owning_group(&acl(&[(4, 7, none)])), Some(7));
    }

    #[test]
    fn what_is_none_is_not_told() {
        let cut = &acl(&[(1, 6, 0)])[..9];
        for bytes in [b"".as_slice(), b"\x02\0\0", &VERSION, b"\x03\0\0\0", cut, &acl(&[(3, 7, 0)])] {
            assert_eq!(text(bytes), None);
            assert_eq!(owning_group(bytes), None);
        }
    }
}
