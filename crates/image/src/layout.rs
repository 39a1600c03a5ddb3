//! The checkpoint's byte layout: a fixed header, then self-describing sections, each with its own version and checksum.
//! `docs/image.md` draws every byte.
use crate::codec;
use crate::id::ObjectId;
use crate::page_set::Run;
use crate::tree::Tree;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// First bytes of an image file.
pub const MAGIC: [u8; 8] = *b"GODWIT\r\n";
/// Version of the layout of header and sections.
pub const LAYOUT_VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes in front of each section's payload.
pub const SECTION_HEADER_BYTES: usize = 24;
/// Largest image file that is read, in bytes. Page contents are elsewhere.
pub const IMAGE_BYTES_MAX: u64 = 1 << 30;
/// x86-64.
pub const ARCHITECTURE_X86_64: u16 = 1;

/// Name of the finished image file.
pub const IMAGE_NAME: &str = "godwit.image";
/// Name of the image file until it is complete.
pub const PARTIAL_NAME: &str = "godwit.image.partial";
/// Name of the file with the page contents.
pub const PAGES_NAME: &str = "godwit.pages";

/// What a section holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectionKind {
    /// One `HostFacts`.
    Host = 1,
    /// One `Task`.
    Task = 2,
    /// One `AddressSpace`.
    Space = 3,
    /// One `FileTable`.
    Table = 4,
    /// One `FilesystemContext`.
    Filesystem = 5,
    /// One `Envelope`.
    Object = 6,
    /// One [`PageIndex`].
    Pages = 7,
    /// The last section: [`End`].
    End = 255,
}

/// Where the bytes of one owner lie in the pages file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageIndex {
    /// Address space or object.
    pub owner: ObjectId,
    /// Offset of its first byte in the pages file, a multiple of 4096.
    pub offset: u64,
    /// Ranges of addresses (or file positions), ascending; their bytes lie one after another.
    pub runs: Vec<Run>,
    /// CRC-32 of those bytes.
    pub checksum: u32,
}

impl PageIndex {
    /// Bytes in the pages file.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes()).sum()
    }
}

/// Contents of the last section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// Sections before this one.
    pub sections: u64,
    /// Length of the pages file in bytes.
    pub page_bytes: u64,
}

/// A decoded checkpoint without its page contents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// The tree.
    pub tree: Tree,
    /// Where its bytes are, in the order in which they are restored.
    pub pages: Vec<PageIndex>,
    /// Seconds since 1970 when it was taken.
    pub created: u64,
}

/// Why bytes are not a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// Not an image at all.
    Magic,
    /// Of a layout that this build does not read.
    Version(u16),
    /// Of another processor architecture.
    Architecture(u16),
    /// It ends too early, or a length does not fit.
    Truncated(String),
    /// A checksum does not match.
    Checksum(String),
    /// A section's contents are not what its kind says.
    Section(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Magic => write!(f, "it is not a Godwit image"),
            Invalid::Version(version) => write!(f, "layout version {version}; this build reads {LAYOUT_VERSION}"),
            Invalid::Architecture(number) => write!(f, "architecture {number}; this build is for x86-64"),
            Invalid::Truncated(what) => write!(f, "truncated: {what}"),
            Invalid::Checksum(what) => write!(f, "checksum mismatch: {what}"),
            Invalid::Section(what) => write!(f, "{what}"),
        }
    }
}

impl core::error::Error for Invalid {}

fn header(created: u64, length: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0_u8; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&ARCHITECTURE_X86_64.to_le_bytes());
    header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header[16..24].copy_from_slice(&length.to_le_bytes());
    header[24..32].copy_from_slice(&created.to_le_bytes());
    let checksum = crc32fast::hash(&header[..60]);
    header[60..64].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn section<T: Serialize>(out: &mut Vec<u8>, kind: SectionKind, value: &T) -> Result<(), Invalid> {
    let payload = codec::encode(value).map_err(|error| Invalid::Section(format!("{error}")))?;
    let mut head = [0_u8; SECTION_HEADER_BYTES];
    head[0..4].copy_from_slice(&(kind as u32).to_le_bytes());
    head[4..6].copy_from_slice(&1_u16.to_le_bytes());
    head[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    head[16..20].copy_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    let checksum = crc32fast::hash(&head[..20]);
    head[20..24].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&payload);
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(())
}

/// Encodes a checkpoint.
///
/// # Errors
/// Only when a state cannot be represented; no type of this workspace can.
pub fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, Invalid> {
    let mut out = alloc::vec![0; HEADER_BYTES];
    let tree = &checkpoint.tree;
    let mut sections = 1;
    section(&mut out, SectionKind::Host, &tree.host)?;
    let mut each = |result: Result<(), Invalid>| {
        sections += 1;
        result
    };
    for task in &tree.tasks {
        each(section(&mut out, SectionKind::Task, task))?;
    }
    for space in &tree.spaces {
        each(section(&mut out, SectionKind::Space, space))?;
    }
    for table in &tree.tables {
        each(section(&mut out, SectionKind::Table, table))?;
    }
    for filesystem in &tree.filesystems {
        each(section(&mut out, SectionKind::Filesystem, filesystem))?;
    }
    for object in &tree.objects {
        each(section(&mut out, SectionKind::Object, object))?;
    }
    for index in &checkpoint.pages {
        each(section(&mut out, SectionKind::Pages, index))?;
    }
    let page_bytes = checkpoint.pages.iter().map(|index| index.offset + index.bytes()).max().unwrap_or(0);
    section(&mut out, SectionKind::End, &End { sections, page_bytes })?;
    let head = header(checkpoint.created, out.len() as u64);
    out[..HEADER_BYTES].copy_from_slice(&head);
    Ok(out)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |raw| u16::from_le_bytes([raw[0], raw[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Reads the fixed header: length of the whole file in bytes, creation time. Anything of any version can be told apart by
/// these 64 bytes alone.
///
/// # Errors
/// Not an image, another version, another architecture, a damaged header.
pub fn decode_header(bytes: &[u8]) -> Result<(u64, u64), Invalid> {
    if bytes.len() < HEADER_BYTES {
        return Err(if MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
            Invalid::Truncated(String::from("shorter than a header"))
        } else {
            Invalid::Magic
        });
    }
    if bytes[..8] != MAGIC {
        return Err(Invalid::Magic);
    }
    if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
        return Err(Invalid::Checksum(String::from("header")));
    }
    match u16_at(bytes, 8) {
        LAYOUT_VERSION => {}
        version => return Err(Invalid::Version(version)),
    }
    match u16_at(bytes, 10) {
        ARCHITECTURE_X86_64 => {}
        number => return Err(Invalid::Architecture(number)),
    }
    Ok((u64_at(bytes, 16), u64_at(bytes, 24)))
}

/// Decodes a whole image file and checks that the tree is sound.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, Invalid> {
    let (length, created) = decode_header(bytes)?;
    if length != bytes.len() as u64 {
        return Err(Invalid::Truncated(format!("{} of {length} bytes", bytes.len())));
    }
    let mut checkpoint = Checkpoint { created, ..Checkpoint::default() };
    let mut at = HEADER_BYTES;
    let mut sections = 0_u64;
    loop {
        let Some(head) = bytes.get(at..at + SECTION_HEADER_BYTES) else {
            return Err(Invalid::Truncated(format!("section at {at}")));
        };
        if crc32fast::hash(&head[..20]) != u32_at(head, 20) {
            return Err(Invalid::Checksum(format!("header of the section at {at}")));
        }
        let payload_bytes = usize::try_from(u64_at(head, 8)).unwrap_or(usize::MAX);
        let start = at + SECTION_HEADER_BYTES;
        let payload = start.checked_add(payload_bytes).and_then(|end| bytes.get(start..end));
        let Some(payload) = payload else {
            return Err(Invalid::Truncated(format!("section at {at}")));
        };
        if crc32fast::hash(payload) != u32_at(head, 16) {
            return Err(Invalid::Checksum(format!("section at {at}")));
        }
        let (kind, version) = (u32_at(head, 0), u16_at(head, 4));
        if version != 1 {
            return Err(Invalid::Section(format!("section {kind} at {at} has version {version}; this build reads 1")));
        }
        let end = start + payload_bytes;
        at = end.next_multiple_of(8);
        if bytes.get(end..at).is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Err(Invalid::Section(format!("what lies between sections at {end} is not zero")));
        }
        if kind == SectionKind::End as u32 {
            let end: End = open(payload, at)?;
            return finish(checkpoint, &end, sections, at, bytes.len());
        }
        sections += 1;
        place(&mut checkpoint, kind, payload, at)?;
    }
}

fn open<T: DeserializeOwned>(payload: &[u8], at: usize) -> Result<T, Invalid> {
    codec::decode(payload).map_err(|error| Invalid::Section(format!("section before {at}: {error}")))
}

fn place(checkpoint: &mut Checkpoint, kind: u32, payload: &[u8], at: usize) -> Result<(), Invalid> {
    let tree = &mut checkpoint.tree;
    match kind {
        1 => tree.host = open(payload, at)?,
        2 => tree.tasks.push(open(payload, at)?),
        3 => tree.spaces.push(open(payload, at)?),
        4 => tree.tables.push(open(payload, at)?),
        5 => tree.filesystems.push(open(payload, at)?),
        6 => tree.objects.push(open(payload, at)?),
        7 => checkpoint.pages.push(open(payload, at)?),
        other => return Err(Invalid::Section(format!("unknown section {other} before {at}"))),
    }
    Ok(())
}

fn finish(checkpoint: Checkpoint, end: &End, sections: u64, at: usize, length: usize) -> Result<Checkpoint, Invalid> {
    if end.sections != sections || at != length {
        return Err(Invalid::Truncated(format!("{sections} of {} sections", end.sections)));
    }
    for index in &checkpoint.pages {
        let ascending = index.runs.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let aligned = index.offset % 4096 == 0
            && index.runs.iter().all(|run| run.start < run.end && (run.start | run.end) % 4096 == 0);
        let fits = index.offset.checked_add(index.bytes()).is_some_and(|last| last <= end.page_bytes);
        if !(ascending && aligned && fits) {
            return Err(Invalid::Section(format!("page index of object {} is out of order", index.owner)));
        }
    }
    checkpoint.tree.validate().map_err(Invalid::Section)?;
    Ok(checkpoint)
}
