//! A zero-copy reader of the BPF type format (kernel: Documentation/bpf/btf.rst):
//! bytes in, type records and names out, all borrowed from the input. The only
//! heap use is one offset for every [`STRIDE`]-th type, about 40 KB for a full
//! kernel. Malformed input is an error, found by [`Btf::parse`] or at the access;
//! nothing here looks at what the types mean (that is `lookup`).
//!
//! Own code, because the crates at hand (`btf` 0.5, `btf-rs` 2.0, aya-obj's)
//! decode every type to the heap, tens of megabytes for a kernel, and `btf-rs`
//! is LGPL, which a static binary should not carry.

use thiserror::Error;

/// One type in this many has its place remembered; the others are reached by
/// stepping over at most this many headers.
const STRIDE: u32 = 16;
const MAGIC: u16 = 0xeb9f;

/// Why a BTF blob can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The blob ends before the named part does.
    #[error("truncated in the {0}")]
    Truncated(&'static str),
    /// BTF of a machine of the other byte order.
    #[error("big-endian BTF; only x86_64 and aarch64, little-endian, are known")]
    BigEndian,
    /// Not BTF.
    #[error("bad magic {0:#06x}")]
    Magic(u16),
    /// A format version that this reader does not know.
    #[error("unknown version {0}")]
    Version(u8),
    /// A kind of type that this reader does not know, so that its size is unknown.
    #[error("type {id}: unknown kind {kind}")]
    Kind {
        /// Type id.
        id: u32,
        /// The kind's number.
        kind: u32,
    },
    /// The string section does not end in a NUL.
    #[error("string section without a final NUL")]
    Strings,
    /// A module's blob whose names do not begin where its base's do.
    #[error("it belongs to another kernel image")]
    OtherBase,
    /// A name outside the string section.
    #[error("string offset {0} out of range")]
    Name(u32),
    /// A type id that does not exist.
    #[error("type {0} does not exist")]
    NoType(u32),
    /// A chain or nesting of types longer than any compiler makes.
    #[error("type {0}: nested too deeply")]
    Depth(u32),
    /// More types of one wanted name than any kernel has.
    #[error("too many types of the same name")]
    TooMany,
}

/// Kinds of types, numbered as in `BTF_KIND_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub enum Kind {
    Void = 0,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    /// The kind and, in bytes, the fixed and the per-element size of what
    /// follows its 12-byte header.
    fn decode(number: u32) -> Option<(Kind, usize, usize)> {
        use Kind::*;
        Some(match number {
            1 => (Int, 4, 0),
            2 => (Ptr, 0, 0),
            3 => (Array, 12, 0),
            4 => (Struct, 0, 12),
            5 => (Union, 0, 12),
            6 => (Enum, 0, 8),
            7 => (Fwd, 0, 0),
            8 => (Typedef, 0, 0),
            9 => (Volatile, 0, 0),
            10 => (Const, 0, 0),
            11 => (Restrict, 0, 0),
            12 => (Func, 0, 0),
            13 => (FuncProto, 0, 8),
            14 => (Var, 4, 0),
            15 => (Datasec, 0, 12),
            16 => (Float, 0, 0),
            17 => (DeclTag, 4, 0),
            18 => (TypeTag, 0, 0),
            19 => (Enum64, 0, 12),
            _ => return None,
        })
    }
}

/// One type record.
#[derive(Debug, Clone, Copy)]
pub struct Type<'d> {
    /// Its id.
    pub id: u32,
    /// Its kind.
    pub kind: Kind,
    /// Offset of its name in the string section, 0 = anonymous.
    pub name_off: u32,
    /// The header's `kind_flag`.
    pub kind_flag: bool,
    /// The header's last word: a size in bytes or a type id, depending on the kind.
    pub size_or_type: u32,
    /// What follows the header.
    pub body: &'d [u8],
}

/// One member of a struct or union.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Offset of its name, 0 = anonymous.
    pub name_off: u32,
    /// Its type.
    pub type_id: u32,
    /// Offset in bits.
    pub bit_offset: u32,
    /// Width if it is a bit field, else 0.
    pub bit_width: u32,
}

impl<'d> Type<'d> {
    /// Members of a struct or union, none for other kinds.
    pub fn members(&self) -> impl Iterator<Item = Member> + use<'d> {
        let fields = matches!(self.kind, Kind::Struct | Kind::Union);
        let packed = self.kind_flag;
        words::<3>(if fields { self.body } else { &[] }).map(move |[name_off, type_id, at]| {
            Member {
                name_off,
                type_id,
                bit_offset: if packed { at & 0x00ff_ffff } else { at },
                bit_width: if packed { at >> 24 } else { 0 },
            }
        })
    }

    /// Name offset and value of each enumerator of a 32-bit enum.
    pub fn enumerators(&self) -> impl Iterator<Item = (u32, u32)> + use<'d> {
        words::<2>(if self.kind == Kind::Enum {
            self.body
        } else {
            &[]
        })
        .map(|[n, v]| (n, v))
    }

    /// Name offset and type of each parameter of a function prototype.
    pub fn params(&self) -> impl Iterator<Item = (u32, u32)> + use<'d> {
        words::<2>(if self.kind == Kind::FuncProto {
            self.body
        } else {
            &[]
        })
        .map(|[n, t]| (n, t))
    }

    /// Element type and number of elements of an array.
    pub fn array(&self) -> Option<(u32, u32)> {
        let [element, _index, count] = words::<3>(self.body).next()?;
        (self.kind == Kind::Array).then_some((element, count))
    }

    /// The type this one wraps: a modifier's or typedef's, not a pointer's.
    pub fn wrapped(&self) -> Option<u32> {
        use Kind::*;
        matches!(self.kind, Typedef | Volatile | Const | Restrict | TypeTag)
            .then_some(self.size_or_type)
    }
}

fn words<const N: usize>(body: &[u8]) -> impl Iterator<Item = [u32; N]> + use<'_, N> {
    let (words, _) = body.as_chunks::<4>();
    let (records, _) = words.as_chunks::<N>();
    records.iter().map(|record| record.map(u32::from_le_bytes))
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A parsed blob; split BTF (a module's) has its base's types and strings below its own.
#[derive(Debug)]
pub struct Btf<'d> {
    types: &'d [u8],
    strings: &'d [u8],
    base: Option<&'d Btf<'d>>,
    first_id: u32,
    end_id: u32,
    first_string: u32,
    places: Vec<u32>,
}

impl<'d> Btf<'d> {
    /// Checks the header and the extent of every type record.
    pub fn parse(data: &'d [u8], base: Option<&'d Btf<'d>>) -> Result<Self, BtfError> {
        let header = |at| word(data, at).ok_or(BtfError::Truncated("header"));
        let first = header(0)?;
        let (magic, version) = ((first & 0xffff) as u16, (first >> 16) as u8);
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::BigEndian);
        }
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        if version != 1 {
            return Err(BtfError::Version(version));
        }
        // A longer header adds sections (7.x), it does not move the first two.
        let header_bytes = header(4)?;
        let section = |at, len, what| {
            let start = (header_bytes as usize).checked_add(at as usize);
            let range = start.and_then(|s| Some(s..s.checked_add(len as usize)?));
            range
                .and_then(|r| data.get(r))
                .ok_or(BtfError::Truncated(what))
        };
        let types = section(header(8)?, header(12)?, "type section")?;
        let strings = section(header(16)?, header(20)?, "string section")?;
        if strings.last().is_some_and(|&b| b != 0) || (strings.is_empty() && base.is_none()) {
            return Err(BtfError::Strings);
        }
        let first_id = base.map_or(1, |b| b.end_id);
        let mut btf = Btf {
            types,
            strings,
            base,
            first_id,
            end_id: first_id,
            first_string: base.map_or(0, |b| b.first_string + b.strings.len() as u32),
            places: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            if (btf.end_id - first_id).is_multiple_of(STRIDE) {
                btf.places.push(at as u32);
            }
            let (_, next) = btf.decode(btf.end_id, at)?;
            at = next;
            btf.end_id = btf.end_id.checked_add(1).ok_or(BtfError::TooMany)?;
        }
        Ok(btf)
    }

    /// The record at byte `at` of the type section, and where the next one starts.
    fn decode(&self, id: u32, at: usize) -> Result<(Type<'d>, usize), BtfError> {
        let cut = BtfError::Truncated("type section");
        let header = |i| word(self.types, at + i).ok_or(cut);
        let info = header(4)?;
        // Wider masks than 5.10's 16 and 5 bits: the bits above were zero, so a
        // kernel that comes to use them is read right or refused, never misread.
        let (vlen, number) = (info & 0x00ff_ffff, info >> 24 & 0x7f);
        let (kind, fixed, each) =
            Kind::decode(number).ok_or(BtfError::Kind { id, kind: number })?;
        let end = at + 12 + fixed + each * vlen as usize;
        let body = self.types.get(at + 12..end).ok_or(cut)?;
        let kind_flag = info >> 31 == 1;
        Ok((
            Type {
                id,
                kind,
                name_off: header(0)?,
                kind_flag,
                size_or_type: header(8)?,
                body,
            },
            end,
        ))
    }

    /// The type with this id; `Void` for 0.
    pub fn get(&self, id: u32) -> Result<Type<'d>, BtfError> {
        if id == 0 {
            return Ok(Type {
                id,
                kind: Kind::Void,
                name_off: 0,
                kind_flag: false,
                size_or_type: 0,
                body: &[],
            });
        }
        if id < self.first_id {
            return self.base.ok_or(BtfError::NoType(id))?.get(id);
        }
        if id >= self.end_id {
            return Err(BtfError::NoType(id));
        }
        let nth = id - self.first_id;
        let place = self
            .places
            .get((nth / STRIDE) as usize)
            .ok_or(BtfError::NoType(id))?;
        let mut at = *place as usize;
        for before in id - nth % STRIDE..id {
            at = self.decode(before, at)?.1;
        }
        Ok(self.decode(id, at)?.0)
    }

    /// Whether the names of a module's types begin where names do, which they do not
    /// over the image of another kernel: nothing else in the format says whose it is.
    pub fn check_base(&self) -> Result<(), BtfError> {
        for ty in self.types() {
            // A name that begins one byte earlier is longer by one, unless that byte
            // ends the one before.
            if ty.name_off != 0
                && ty.name_off != self.first_string
                && !self.name(ty.name_off - 1)?.is_empty()
            {
                return Err(BtfError::OtherBase);
            }
        }
        Ok(())
    }

    /// The types of this blob, without its base's.
    pub fn types(&self) -> impl Iterator<Item = Type<'d>> + '_ {
        let mut at = 0;
        (self.first_id..self.end_id).map_while(move |id| {
            let (ty, next) = self.decode(id, at).ok()?;
            at = next;
            Some(ty)
        })
    }

    /// A name, without its NUL.
    pub fn name(&self, offset: u32) -> Result<&'d [u8], BtfError> {
        if offset < self.first_string {
            return self.base.ok_or(BtfError::Name(offset))?.name(offset);
        }
        let at = (offset - self.first_string) as usize;
        let rest = self.strings.get(at..).ok_or(BtfError::Name(offset))?;
        let end = rest
            .iter()
            .position(|&b| b == 0)
            .ok_or(BtfError::Name(offset))?;
        Ok(&rest[..end])
    }
}
