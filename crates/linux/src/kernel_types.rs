//! The running kernel's own description of its types (BTF): where a member of a structure lies, and what a function's number is.
//!
//! Format: Documentation/bpf/btf.rst of Linux; /sys/kernel/btf/vmlinux holds it since Linux 5.4 where the kernel was built with it.
use std::io;

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// struct btf_header up to what is used here.
const HEADER_BYTES: usize = 24;
/// struct btf_type.
const TYPE_BYTES: usize = 12;
/// Structures in structures, and names for names.
const DEPTH_MAX: usize = 32;

/// What a type is, as the format numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Kind {
    Integer = 1,
    Pointer = 2,
    Array = 3,
    Structure = 4,
    Union = 5,
    Enumeration = 6,
    Forward = 7,
    Name = 8,
    Volatile = 9,
    Constant = 10,
    Restrict = 11,
    Function = 12,
    Prototype = 13,
    Variable = 14,
    Section = 15,
    Float = 16,
    DeclarationTag = 17,
    TypeTag = 18,
    Enumeration64 = 19,
}

const KINDS: [Kind; 19] = [
    Kind::Integer,
    Kind::Pointer,
    Kind::Array,
    Kind::Structure,
    Kind::Union,
    Kind::Enumeration,
    Kind::Forward,
    Kind::Name,
    Kind::Volatile,
    Kind::Constant,
    Kind::Restrict,
    Kind::Function,
    Kind::Prototype,
    Kind::Variable,
    Kind::Section,
    Kind::Float,
    Kind::DeclarationTag,
    Kind::TypeTag,
    Kind::Enumeration64,
];

/// One type.
#[derive(Clone, Copy, Debug)]
struct Type {
    kind: Kind,
    /// Members, parameters, values.
    count: usize,
    /// Offsets of members tell their widths in bits.
    has_widths: bool,
    name: u32,
    /// Bytes, or the type that is referred to.
    size_or_type: u32,
    /// Where what follows the head lies.
    rest: usize,
}

/// Where a member lies in its structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Bytes from the structure's beginning.
    pub offset: u32,
    /// How many bytes it has, or those that hold it.
    pub bytes: u32,
    /// Of a bit field: its first bit in those bytes, and how many it has.
    pub bits: Option<(u32, u32)>,
}

/// The kernel's types.
#[derive(Debug)]
pub struct KernelTypes {
    data: Vec<u8>,
    /// Where each type's head lies, by number; number 0 is void.
    heads: Vec<u32>,
    /// Where the names begin.
    strings: usize,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

impl KernelTypes {
    /// Reads those of the running kernel: some 5 MB.
    ///
    /// # Errors
    /// The kernel tells none; it tells them in a form that is not known here.
    pub fn read() -> io::Result<KernelTypes> {
        KernelTypes::parse(std::fs::read(PATH)?)
    }

    /// Takes them in.
    ///
    /// # Errors
    /// They are cut off, or hold a kind of type that is not known here.
    pub fn parse(data: Vec<u8>) -> io::Result<KernelTypes> {
        let magic = data.first_chunk().map(|raw| u16::from_le_bytes(*raw));
        if magic != Some(MAGIC) {
            return Err(malformed("no types of a kernel"));
        }
        let header = |at: usize| word(&data, at).map(|value| value as usize).ok_or_else(|| malformed("cut off"));
        let (length, types, types_bytes) = (header(4)?, header(8)?, header(12)?);
        let strings = length.saturating_add(header(16)?);
        if length < HEADER_BYTES || strings > data.len() {
            return Err(malformed("lengths do not fit"));
        }
        let (mut at, mut heads) = (length.saturating_add(types), vec![0]);
        let end = at.saturating_add(types_bytes).min(data.len());
        let mut found = KernelTypes { data, heads: Vec::new(), strings };
        while at < end {
            let head = found.at(at).ok_or_else(|| malformed("a type that is not known"))?;
            heads.push(at as u32);
            at = head.rest.saturating_add(head.extra_bytes());
        }
        found.heads = heads;
        Ok(found)
    }

    fn at(&self, at: usize) -> Option<Type> {
        let (name, info, size_or_type) = (word(&self.data, at)?, word(&self.data, at + 4)?, word(&self.data, at + 8)?);
        let kind = *KINDS.get((info >> 24 & 0x1f).checked_sub(1)? as usize)?;
        let (count, has_widths) = ((info & 0xffff) as usize, info >> 31 != 0);
        Some(Type { kind, count, has_widths, name, size_or_type, rest: at + TYPE_BYTES })
    }

    fn numbered(&self, number: u32) -> Option<Type> {
        self.at(*self.heads.get(number as usize).filter(|_| number != 0)? as usize)
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let start = self.strings.saturating_add(name as usize);
        let found = self.data.get(start..start.saturating_add(wanted.len() + 1));
        found.and_then(|found| found.split_last()) == Some((&0, wanted.as_bytes()))
    }

    /// The number of the first type of a kind with a name, and the type.
    fn find(&self, kind: Kind, name: &str) -> Option<(u32, Type)> {
        let numbers = 1..self.heads.len() as u32;
        let mut types = numbers.filter_map(|number| Some((number, self.numbered(number)?)));
        types.find(|(_, found)| found.kind == kind && self.is_named(found.name, name))
    }

    /// The number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(Kind::Function, name).map(|(number, _)| number)
    }

    /// Where members of a structure lie, each with those of structures inside after dots: "seccomp.mode". One that is not there
    /// has no place.
    pub fn members<const N: usize>(&self, structure: &str, paths: [&str; N]) -> Option<[Option<Place>; N]> {
        let (_, found) = self.find(Kind::Structure, structure)?;
        Some(paths.map(|path| self.member(found, path)))
    }

    fn member(&self, structure: Type, path: &str) -> Option<Place> {
        let mut parts = path.split('.');
        let (mut offset, mut member) = self.member_at(structure, parts.next()?, 0)?;
        for part in parts {
            let inside = self.plain(member.0)?;
            let (further, next) = self.member_at(inside, part, 0)?;
            (offset, member) = (offset.checked_add(further)?, next);
        }
        let (number, width) = member;
        if width != 0 {
            let shift = offset % 8;
            return Some(Place { offset: offset / 8, bytes: (shift + width).div_ceil(8), bits: Some((shift, width)) });
        }
        let bytes = u32::try_from(self.bytes(number, 0)?).ok()?;
        Some(Place { offset: offset / 8, bytes, bits: None })
    }

    /// Bits from the beginning to a member, its type, and how many bits it has if it is a bit field. Members of structures
    /// without a name are members of what they are in.
    fn member_at(&self, structure: Type, name: &str, depth: usize) -> Option<(u32, (u32, u32))> {
        if !matches!(structure.kind, Kind::Structure | Kind::Union) || depth > DEPTH_MAX {
            return None;
        }
        for index in 0..structure.count {
            let at = structure.rest + index * 12;
            let (its, number, place) = (word(&self.data, at)?, word(&self.data, at + 4)?, word(&self.data, at + 8)?);
            let (bits, width) = if structure.has_widths { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            if self.is_named(its, name) {
                return Some((bits, (number, width)));
            }
            if self.is_named(its, "")
                && let Some(inside) = self.plain(number)
                && let Some((further, found)) = self.member_at(inside, name, depth + 1)
            {
                return Some((bits.checked_add(further)?, found));
            }
        }
        None
    }

    /// A type without the names and qualifiers that are put on it.
    fn plain(&self, mut number: u32) -> Option<Type> {
        for _ in 0..DEPTH_MAX {
            let found = self.numbered(number)?;
            match found.kind {
                Kind::Name | Kind::Volatile | Kind::Constant | Kind::Restrict | Kind::TypeTag => {
                    number = found.size_or_type;
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn bytes(&self, number: u32, depth: usize) -> Option<u64> {
        let found = self.plain(number)?;
        match found.kind {
            Kind::Pointer => Some(8),
            Kind::Array if depth < DEPTH_MAX => {
                let (element, count) = (word(&self.data, found.rest)?, word(&self.data, found.rest + 8)?);
                self.bytes(element, depth + 1)?.checked_mul(u64::from(count))
            }
            Kind::Integer | Kind::Structure | Kind::Union | Kind::Enumeration | Kind::Enumeration64 | Kind::Float => {
                Some(u64::from(found.size_or_type))
            }
            _ => None,
        }
    }
}

impl Type {
    /// Bytes behind the head.
    fn extra_bytes(self) -> usize {
        match self.kind {
            Kind::Integer | Kind::Variable | Kind::DeclarationTag => 4,
            Kind::Array => 12,
            Kind::Structure | Kind::Union | Kind::Section | Kind::Enumeration64 => self.count * 12,
            Kind::Enumeration | Kind::Prototype => self.count * 8,
            Kind::Pointer
            | Kind::Forward
            | Kind::Name
            | Kind::Volatile
            | Kind::Constant
            | Kind::Restrict
            | Kind::Function
            | Kind::Float
            | Kind::TypeTag => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct outer { int first; const struct { u8 pad; u8 low : 3, high : 4; } ; struct inner in[2]; }; f().
    fn small() -> Vec<u8> {
        let strings = b"\0int\0outer\0first\0pad\0low\0high\0in\0inner\0f\0";
        let name = |wanted: &str| {
            let wanted = format!("\0{wanted}\0");
            strings.windows(wanted.len()).position(|found| found == wanted.as_bytes()).unwrap() as u32 + 1
        };
        let head = |name: u32, kind: Kind, count: u32, widths: u32, last: u32| {
            vec![name, widths << 31 | (kind as u32) << 24 | count, last]
        };
        let types: Vec<u32> = [
            head(name("int"), Kind::Integer, 0, 0, 4),
            vec![32],
            head(0, Kind::Structure, 3, 1, 4),
            vec![name("pad"), 1, 0, name("low"), 1, 3 << 24 | 8, name("high"), 1, 4 << 24 | 11],
            head(0, Kind::Constant, 0, 0, 2),
            head(name("inner"), Kind::Structure, 1, 0, 12),
            vec![name("pad"), 1, 64],
            head(0, Kind::Array, 0, 0, 0),
            vec![4, 1, 2],
            head(name("outer"), Kind::Structure, 3, 0, 40),
            vec![name("first"), 1, 0, 0, 3, 32, name("in"), 5, 64],
            head(name("f"), Kind::Function, 0, 0, 0),
        ]
        .concat();
        let lengths = [24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32];
        let mut data = [MAGIC.to_le_bytes(), [1, 0]].concat();
        lengths.iter().chain(&types).for_each(|word| data.extend_from_slice(&word.to_le_bytes()));
        data.extend_from_slice(strings);
        data
    }

    #[test]
    fn members_are_found_where_they_are() {
        let types = KernelTypes::parse(small()).unwrap();
        let places = types.members("outer", ["first", "low", "high", "in", "in.pad", "none", "first.x"]).unwrap();
        let place = |offset, bytes, bits| Some(Place { offset, bytes, bits });
        let expected = [
            place(0, 4, None),
            place(5, 1, Some((0, 3))),
            place(5, 1, Some((3, 4))),
            place(8, 24, None),
            None,
            None,
            None,
        ];
        assert_eq!(places, expected);
        assert_eq!(types.members("inner", ["pad"]).unwrap(), [place(8, 4, None)]);
        assert_eq!(types.function("f"), Some(7));
        assert!(types.members("f", ["pad"]).is_none() && types.function("outer").is_none());
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_an_error_or_has_nothing() {
        let whole = small();
        for length in 0..whole.len() {
            if let Ok(types) = KernelTypes::parse(whole[..length].to_vec()) {
                let _ = types.members("outer", ["in.pad", "high"]);
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok(types) = KernelTypes::parse(changed) {
                    let _ = (types.members("outer", ["in.pad", "high", "first.x"]), types.function("f"));
                }
            }
        }
    }

    #[test]
    fn the_running_kernels_are_read() {
        let types = match KernelTypes::read() {
            Ok(types) => types,
            Err(error) => {
                println!("skipped: {PATH}: {error}");
                return;
            }
        };
        let [name, mask, none] = types.members("task_struct", ["comm", "blocked", "no such"]).unwrap();
        assert_eq!((name.unwrap().bytes, mask.unwrap().bytes, none), (16, 8, None));
    }
}
