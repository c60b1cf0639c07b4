//! Questions to a BTF: where is a member, how large is a type, what value has an
//! enumerator, what are a tracepoint's arguments. In: a [`Btf`] and names; out:
//! numbers, or a [`LookupError`] whose text tells the user why there is none.
//! Which questions are asked is in `table`.

use thiserror::Error;

use super::btf::{Btf, BtfError, Kind, Type};

/// Typedefs and qualifiers in a row; kernels have at most six.
const MAX_CHAIN: u32 = 32;
/// Anonymous structs and unions inside each other.
const MAX_NESTING: u32 = 16;
/// Members visited for one path component: stops a crafted blob whose unions
/// share their parts from taking exponential time.
const MAX_VISITS: u32 = 16_384;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// No struct, enum, or event of that name.
    #[error("no {0}")]
    Absent(String),
    /// The struct or enum has no such member.
    #[error("no {member} in {owner}")]
    NoMember {
        /// Struct or enum.
        owner: String,
        /// What was looked for.
        member: String,
    },
    /// Found, but of a size that the programs don't read.
    #[error("{path} has {found} bytes, not {expected}")]
    Width {
        /// What was looked for.
        path: String,
        /// Its size in bytes.
        found: u32,
        /// The size that the programs read.
        expected: u32,
    },
    /// A bit field has no byte offset.
    #[error("{0} is a bit field")]
    BitField(String),
    /// Several types of that name disagree.
    #[error("{0} differs between types of the same name")]
    Ambiguous(String),
    /// The arguments are not of a known form.
    #[error("unexpected arguments of {0}")]
    Prototype(String),
    /// The blob is broken.
    #[error("malformed BTF: {0}")]
    Malformed(#[from] BtfError),
}

/// A member that was found, relative to the struct searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Bytes from the start of the struct.
    pub offset: u32,
    /// Its type.
    pub type_id: u32,
}

/// Called with the id of each struct or union and the index of each of its
/// members on the way to a member that was found.
pub type Trail<'t> = &'t mut dyn FnMut(u32, usize);

impl<'d> Btf<'d> {
    /// The type behind typedefs and qualifiers.
    pub fn strip(&self, id: u32) -> Result<Type<'d>, BtfError> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            match ty.wrapped() {
                Some(inner) => ty = self.get(inner)?,
                None => return Ok(ty),
            }
        }
        Err(BtfError::Depth(id))
    }

    /// Size in bytes; 0 for what has none.
    pub fn size(&self, id: u32) -> Result<u32, BtfError> {
        let (mut id, mut times) = (id, 1_u32);
        for _ in 0..MAX_CHAIN {
            let ty = self.strip(id)?;
            let bytes = match ty.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float => ty.size_or_type,
                Kind::Ptr => 8,
                Kind::Array => {
                    let (element, count) = ty.array().ok_or(BtfError::Truncated("array"))?;
                    id = element;
                    times = times.saturating_mul(count);
                    continue;
                }
                _ => 0,
            };
            return Ok(bytes.saturating_mul(times));
        }
        Err(BtfError::Depth(id))
    }

    /// A member by a dotted path, `bi_iter.bi_size` or `regs[1]`; every
    /// component is also looked for in anonymous structs and unions.
    pub fn member(
        &self,
        owner: &Type,
        path: &str,
        trail: Trail,
    ) -> Result<Option<Found>, LookupError> {
        let mut at = Found {
            offset: 0,
            type_id: owner.id,
        };
        for component in path.split('.') {
            let (name, index) = match component.split_once('[') {
                Some((name, index)) => (name, index.trim_end_matches(']').parse::<u32>().ok()),
                None => (component, None),
            };
            let ty = self.strip(at.type_id)?;
            let mut visits = 0;
            let Some((bits, type_id)) =
                self.search(&ty, name.as_bytes(), MAX_NESTING, &mut visits, trail)?
            else {
                return Ok(None);
            };
            if bits % 8 != 0 {
                return Err(LookupError::BitField(path.to_owned()));
            }
            at = Found {
                offset: at.offset.saturating_add(bits / 8),
                type_id,
            };
            if let Some(index) = index {
                let array = self.strip(at.type_id)?;
                let Some((element, _)) = array.array().filter(|&(_, count)| index < count) else {
                    return Ok(None);
                };
                let skipped = self.size(element)?.saturating_mul(index);
                at = Found {
                    offset: at.offset.saturating_add(skipped),
                    type_id: element,
                };
            }
        }
        Ok(Some(at))
    }

    /// Bit offset and type of a member, here or in anonymous members below.
    fn search(
        &self,
        owner: &Type,
        name: &[u8],
        nesting: u32,
        visits: &mut u32,
        trail: Trail,
    ) -> Result<Option<(u32, u32)>, LookupError> {
        for (index, member) in owner.members().enumerate() {
            *visits += 1;
            if *visits > MAX_VISITS {
                return Err(BtfError::Depth(owner.id).into());
            }
            let below = if member.name_off != 0 {
                if self.name(member.name_off)? != name {
                    continue;
                }
                if member.bit_width != 0 {
                    return Err(LookupError::BitField(
                        String::from_utf8_lossy(name).into_owned(),
                    ));
                }
                Some((0, member.type_id))
            } else {
                let inner = self.strip(member.type_id)?;
                if nesting == 0 {
                    return Err(BtfError::Depth(owner.id).into());
                }
                self.search(&inner, name, nesting - 1, visits, trail)?
            };
            if let Some((bits, type_id)) = below {
                trail(owner.id, index);
                return Ok(Some((member.bit_offset.saturating_add(bits), type_id)));
            }
        }
        Ok(None)
    }

    /// Value of an enumerator.
    pub fn enumerator(&self, ty: &Type, name: &[u8]) -> Result<Option<u32>, BtfError> {
        for (name_off, value) in ty.enumerators() {
            if self.name(name_off)? == name {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Types of a tracepoint's raw arguments, from its `btf_trace_*` typedef
    /// (to a pointer to a prototype whose first parameter is the probe's own
    /// `void *__data`, not an argument).
    pub fn tracepoint_args(&self, typedef: &Type) -> Result<Option<Vec<u32>>, BtfError> {
        let pointer = self.strip(typedef.id)?;
        if pointer.kind != Kind::Ptr {
            return Ok(None);
        }
        let proto = self.strip(pointer.size_or_type)?;
        if proto.kind != Kind::FuncProto || proto.body.is_empty() {
            return Ok(None);
        }
        // The kernel allows 12 arguments; a crafted blob gets no more memory.
        Ok(Some(
            proto.params().skip(1).take(16).map(|(_, id)| id).collect(),
        ))
    }

    /// Whether a function's first argument points to a struct that is declared only.
    pub fn is_opaque_function(&self, id: u32) -> Result<bool, BtfError> {
        let proto = self.strip(self.get(id)?.size_or_type)?;
        let Some((_, first)) = proto.params().next() else {
            return Ok(false);
        };
        let pointer = self.strip(first)?;
        Ok(pointer.kind == Kind::Ptr && self.strip(pointer.size_or_type)?.kind == Kind::Fwd)
    }

    /// Whether this is a pointer to the struct of that name.
    pub fn is_pointer_to(&self, id: u32, name: &[u8]) -> Result<bool, BtfError> {
        let pointer = self.strip(id)?;
        if pointer.kind != Kind::Ptr {
            return Ok(false);
        }
        let target = self.strip(pointer.size_or_type)?;
        // A module may know the struct by a forward declaration only.
        Ok(matches!(target.kind, Kind::Struct | Kind::Fwd) && self.name(target.name_off)? == name)
    }

    /// A type as C writes it, without qualifiers; what has no name is `?`.
    pub fn spelled(&self, id: u32) -> Result<String, BtfError> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            let keyword = match ty.kind {
                Kind::Ptr => {
                    let target = self.get(ty.size_or_type)?;
                    let mut text = if self.unqualified(target)?.kind == Kind::Ptr {
                        "? *".to_owned()
                    } else {
                        self.spelled(ty.size_or_type)?
                    };
                    text.push_str(" *");
                    return Ok(text);
                }
                Kind::Void => return Ok("void".to_owned()),
                Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    ty = self.get(ty.size_or_type)?;
                    continue;
                }
                Kind::Struct => "struct ",
                // Of a union a forward declaration has its kind flag set.
                Kind::Fwd if !ty.kind_flag => "struct ",
                Kind::Union | Kind::Fwd => "union ",
                Kind::Enum | Kind::Enum64 => "enum ",
                _ => "",
            };
            let name = String::from_utf8_lossy(self.name(ty.name_off)?);
            let name = if name.is_empty() { "?" } else { &name };
            return Ok(format!("{keyword}{name}"));
        }
        Err(BtfError::Depth(id))
    }

    fn unqualified(&self, mut ty: Type<'d>) -> Result<Type<'d>, BtfError> {
        for _ in 0..MAX_CHAIN {
            match ty.kind {
                Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    ty = self.get(ty.size_or_type)?;
                }
                _ => return Ok(ty),
            }
        }
        Err(BtfError::Depth(ty.id))
    }

    /// Whether a typedef of that name is in the chain down to the plain type.
    pub fn has_typedef(&self, id: u32, name: &[u8]) -> Result<bool, BtfError> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            if ty.kind == Kind::Typedef && self.name(ty.name_off)? == name {
                return Ok(true);
            }
            match ty.wrapped() {
                Some(inner) => ty = self.get(inner)?,
                None => return Ok(false),
            }
        }
        Err(BtfError::Depth(id))
    }
}
