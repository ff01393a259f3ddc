//! The content test for page-structured files: databases and disk images, which change page by page and keep
//! their offsets.

/// Bytes of a file's beginning that the test wants; fewer make it blind to some kinds.
pub const HEAD_BYTES: usize = 64 << 10;

/// Magic numbers and their offsets.
const MAGICS: &[(usize, &[u8])] = &[
    (0, b"SQLite format 3\0"),
    (0, b"QFI\xfb"),                  // qcow2
    (0, b"KDMV"),                     // vmdk, sparse extent
    (0x40, b"\x7f\x10\xda\xbe"),      // VirtualBox disk image
    (0, b"conectix"),                 // vhd
    (0, b"vhdxfile"),                 // vhdx
    (512, b"EFI PART"),               // GUID partition table
    (0, b"XFSB"),                     // XFS
    (0x438, b"\x53\xef"),             // ext2, ext3, ext4
    (0x10040, b"_BHRfS_M"),           // btrfs
    (3, b"NTFS    "),                 // NTFS
    (0, b"redb\x1a\x0a\xa9\x0d\x0a"), // redb
];

/// Whether a file that begins so is better cut at fixed places.
#[must_use]
pub fn looks_page_structured(head: &[u8]) -> bool {
    let has = |&(offset, magic): &(usize, &[u8])| head.get(offset..offset + magic.len()) == Some(magic);
    MAGICS.iter().any(has) || is_boot_sector(head) || looks_like_postgres_pages(head)
}

/// A master boot record with a partition, or a FAT volume.
fn is_boot_sector(head: &[u8]) -> bool {
    let signed = head.get(510..512) == Some(&[0x55, 0xaa]);
    let partition = |number: usize| {
        let entry = head.get(446 + number * 16..462 + number * 16).unwrap_or_default();
        matches!(entry.first(), Some(0 | 0x80)) && entry.get(4).is_some_and(|kind| *kind != 0)
    };
    signed && (0..4).any(partition)
}

/// Page headers of PostgreSQL (`PageHeaderData` in `bufpage.h`): two pages of 8 KiB, versions 4 and later.
fn looks_like_postgres_pages(head: &[u8]) -> bool {
    const PAGE_BYTES: usize = 8192;
    const HEADER_BYTES: u16 = 24;
    let sound = |page: &[u8]| {
        let word = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let (lower, upper, special, size_and_version) = (word(12), word(14), word(16), word(18));
        let size_is_8k = size_and_version & 0xff00 == PAGE_BYTES as u16;
        size_is_8k
            && matches!(size_and_version & 0xff, 4..=9)
            && (HEADER_BYTES..=upper).contains(&lower)
            && upper <= special
            && special <= PAGE_BYTES as u16
    };
    let (pages, rest) = head.as_chunks::<PAGE_BYTES>();
    !pages.is_empty() && (pages.len() > 1 || rest.is_empty()) && pages.iter().take(2).all(|page| sound(page))
}
