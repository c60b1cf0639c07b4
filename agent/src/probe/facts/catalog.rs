//! One pass over a BTF's types that remembers the few that `table` names, and
//! the answers to one [`Source`] from them. In: a parsed blob; out: numbers or
//! the reason why not. A name may belong to several types (a driver's private
//! struct): those without the member are ignored, those that disagree are an error.

use super::btf::{Btf, BtfError, Kind, Type};
use super::lookup::{LookupError, Trail};
use super::table::{self, Source};

/// Types of wanted names in one blob; real kernels have about 150.
const MAX_WANTED: usize = 4096;
const EVENT_PREFIX: &[u8] = b"btf_trace_";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A struct.
    Struct,
    /// A 32-bit enum.
    Enum,
    /// A tracepoint, by its typedef.
    Event,
    /// A function.
    Function,
}

/// The wanted types of one blob.
pub struct Catalog<'b, 'd> {
    /// The blob.
    pub btf: &'b Btf<'d>,
    found: Vec<(Role, &'static str, u32)>,
}

impl<'b, 'd> Catalog<'b, 'd> {
    /// Walks the blob once.
    pub fn build(btf: &'b Btf<'d>) -> Result<Self, BtfError> {
        let mut wanted: Vec<(Role, &'static str)> = Vec::new();
        wanted.extend(table::struct_names().map(|n| (Role::Struct, n)));
        wanted.extend(table::enum_names().map(|n| (Role::Enum, n)));
        wanted.extend(table::EVENTS.iter().map(|&(_, n)| (Role::Event, n)));
        wanted.extend(table::function_names().map(|n| (Role::Function, n)));
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = Vec::new();
        for ty in btf.types() {
            let role = match ty.kind {
                Kind::Struct => Role::Struct,
                Kind::Enum => Role::Enum,
                Kind::Typedef => Role::Event,
                Kind::Func => Role::Function,
                _ => continue,
            };
            let mut name = btf.name(ty.name_off)?;
            if role == Role::Event {
                match name.strip_prefix(EVENT_PREFIX) {
                    Some(event) => name = event,
                    None => continue,
                }
            }
            if let Ok(at) = wanted.binary_search_by(|&(r, n)| (r, n.as_bytes()).cmp(&(role, name)))
            {
                if found.len() == MAX_WANTED {
                    return Err(BtfError::TooMany);
                }
                found.push((role, wanted[at].1, ty.id));
            }
        }
        Ok(Catalog { btf, found })
    }

    /// Ids of the types of that name.
    pub fn ids(&self, role: Role, name: &str) -> impl Iterator<Item = u32> {
        self.found
            .iter()
            .filter(move |&&(r, n, _)| r == role && n == name)
            .map(|&(_, _, id)| id)
    }

    /// The raw arguments' types of an event, `None` if it is not in this blob.
    pub fn event_args(&self, event: &str) -> Result<Option<Vec<u32>>, BtfError> {
        match self.ids(Role::Event, event).next() {
            Some(id) => self.btf.tracepoint_args(&self.btf.get(id)?),
            None => Ok(None),
        }
    }

    /// The answer of one source. `trail` hears of the members passed.
    pub fn answer(&self, source: Source, trail: Trail) -> Result<u32, LookupError> {
        let args_of = |event: &str| {
            self.event_args(event)?
                .ok_or_else(|| LookupError::Absent(format!("event {event}")))
        };
        match source {
            Source::Offset(path, width) => {
                let (owner, rest) = table::split_struct(path);
                self.agreed(Role::Struct, owner, rest, |ty| {
                    let Some(found) = self.btf.member(ty, rest, trail)? else {
                        return Ok(None);
                    };
                    let size = self.btf.size(found.type_id)?;
                    if width != 0 && size != width {
                        return Err(LookupError::Width {
                            path: path.to_owned(),
                            found: size,
                            expected: width,
                        });
                    }
                    Ok(Some(found.offset))
                })
            }
            Source::If(path, value) => {
                let (owner, rest) = table::split_struct(path);
                self.agreed(Role::Struct, owner, rest, |ty| {
                    Ok(self.btf.member(ty, rest, trail)?.map(|_| value))
                })
            }
            Source::Size(name) => {
                self.agreed(Role::Struct, name, "size", |ty| Ok(Some(ty.size_or_type)))
            }
            Source::Flag(owner, name) => {
                let bit = self.agreed(Role::Enum, owner, name, |ty| {
                    Ok(self.btf.enumerator(ty, name.as_bytes())?)
                })?;
                1_u32.checked_shl(bit).ok_or_else(|| LookupError::Width {
                    path: name.to_owned(),
                    found: bit,
                    expected: 31,
                })
            }
            Source::Function(name) => match self.ids(Role::Function, name).next() {
                Some(_) => Ok(1),
                None => Err(LookupError::Absent(format!("function {name}"))),
            },
            Source::PtrArg(event, target) => {
                for (index, &id) in args_of(event)?.iter().enumerate() {
                    if self.btf.is_pointer_to(id, target.as_bytes())? {
                        return Ok(index as u32);
                    }
                }
                Err(LookupError::Prototype(event.to_owned()))
            }
            Source::ErrnoArg(event, index) => {
                let args = args_of(event)?;
                let unexpected = || LookupError::Prototype(event.to_owned());
                let (&rq, &status) = args.first().zip(args.get(index)).ok_or_else(unexpected)?;
                if !self.btf.is_pointer_to(rq, b"request")? {
                    return Err(unexpected());
                }
                if self.btf.has_typedef(status, b"blk_status_t")? {
                    return Ok(0);
                }
                let plain = self.btf.get(status)?;
                let is_int = plain.kind == Kind::Int && self.btf.name(plain.name_off)? == b"int";
                is_int.then_some(1).ok_or_else(unexpected)
            }
        }
    }

    /// The answer on which all types of one name agree.
    fn agreed(
        &self,
        role: Role,
        owner: &str,
        what: &str,
        mut ask: impl FnMut(&Type) -> Result<Option<u32>, LookupError>,
    ) -> Result<u32, LookupError> {
        let (mut seen, mut answer) = (false, None);
        for id in self.ids(role, owner) {
            seen = true;
            match (ask(&self.btf.get(id)?)?, answer) {
                (Some(new), Some(old)) if new != old => {
                    return Err(LookupError::Ambiguous(format!("{owner}.{what}")));
                }
                (Some(new), _) => answer = Some(new),
                (None, _) => {}
            }
        }
        let kind = if role == Role::Enum { "enum" } else { "struct" };
        match (answer, seen) {
            (Some(answer), _) => Ok(answer),
            (None, true) => Err(LookupError::NoMember {
                owner: format!("{kind} {owner}"),
                member: what.to_owned(),
            }),
            (None, false) => Err(LookupError::Absent(format!("{kind} {owner}"))),
        }
    }
}
