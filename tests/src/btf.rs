//! Breaks facts on purpose: changes a kernel's BTF so that it says something else of
//! one member, one event or one prototype, while all type ids stay. In: raw BTF; out:
//! raw BTF. For tests of what the agent makes of a kernel that is not as it believes.

use anyhow::{Context as _, bail};

const STRUCT: u32 = 4;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const PTR: u32 = 2;

/// A blob that is being changed.
pub struct Btf {
    data: Vec<u8>,
    /// Place of each type record; the first has id 1.
    types: Vec<usize>,
}

impl Btf {
    /// Takes a blob apart.
    ///
    /// # Errors
    /// When it is not BTF as kernels have it.
    pub fn new(data: Vec<u8>) -> anyhow::Result<Self> {
        let mut btf = Btf {
            data,
            types: Vec::new(),
        };
        if btf.word(0)? & 0xffff != 0xeb9f {
            bail!("not BTF");
        }
        let start = (btf.word(4)? + btf.word(8)?) as usize;
        let end = start + btf.word(12)? as usize;
        let mut at = start;
        while at < end {
            btf.types.push(at);
            let info = btf.word(at + 4)?;
            let (vlen, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => 12 * vlen,
                    6 | FUNC_PROTO => 8 * vlen,
                    2 | 7..=12 | 16 | 18 => 0,
                    other => bail!("kind {other} is unknown"),
                };
        }
        Ok(btf)
    }

    /// The changed blob.
    pub fn into_bytes(self) -> Vec<u8> {
        self.data
    }

    /// Moves a member of a struct by so many bytes.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn shift_member(&mut self, owner: &str, member: &str, bytes: i32) -> anyhow::Result<()> {
        let mut found = 0;
        for at in self.find(STRUCT, owner)? {
            let members = (self.word(at + 4)? & 0xffff) as usize;
            for nth in 0..members {
                let place = at + 12 + 12 * nth;
                if self.name(self.word(place)?)? == member {
                    let offset = self.word(place + 8)?.wrapping_add_signed(bytes * 8);
                    self.set(place + 8, offset);
                    found += 1;
                }
            }
        }
        if found == 0 {
            bail!("no {member} in struct {owner}");
        }
        Ok(())
    }

    /// Gives an event another name of the same length.
    ///
    /// # Errors
    /// When there is no such event, or the lengths differ.
    pub fn rename_event(&mut self, event: &str, new: &str) -> anyhow::Result<()> {
        let (at, _) = self.event(event)?;
        self.rename(
            at,
            &format!("btf_trace_{event}"),
            &format!("btf_trace_{new}"),
        )
    }

    /// Gives a struct another name of the same length.
    ///
    /// # Errors
    /// When there is no such struct, or the lengths differ.
    pub fn rename_struct(&mut self, name: &str, new: &str) -> anyhow::Result<()> {
        let found = self.find(STRUCT, name)?;
        let at = found.first().with_context(|| format!("no struct {name}"))?;
        self.rename(*at, name, new)
    }

    /// Exchanges the names of two functions: who asks for one gets the other.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn swap_functions(&mut self, one: &str, other: &str) -> anyhow::Result<()> {
        let place = |name: &str| -> anyhow::Result<usize> {
            let found = self.find(FUNC, name)?;
            found
                .first()
                .copied()
                .with_context(|| format!("no function {name}"))
        };
        let (first, second) = (place(one)?, place(other)?);
        let (first_name, second_name) = (self.word(first)?, self.word(second)?);
        self.set(first, second_name);
        self.set(second, first_name);
        Ok(())
    }

    fn rename(&mut self, at: usize, old: &str, new: &str) -> anyhow::Result<()> {
        if old.len() != new.len() {
            bail!("{old} and {new} differ in length");
        }
        let place = (self.word(4)? + self.word(16)? + self.word(at)?) as usize;
        self.data[place..place + new.len()].copy_from_slice(new.as_bytes());
        Ok(())
    }

    /// Exchanges the types of two of an event's arguments.
    ///
    /// # Errors
    /// When there is no such event or argument.
    pub fn swap_arguments(&mut self, event: &str, one: usize, other: usize) -> anyhow::Result<()> {
        let (_, proto) = self.event(event)?;
        // The first parameter is the probe's own; each has a name and a type.
        let place = |index: usize| proto + 12 + 8 * (index + 1) + 4;
        let (first, second) = (self.word(place(one))?, self.word(place(other))?);
        self.set(place(one), second);
        self.set(place(other), first);
        Ok(())
    }

    /// Puts a pointer to a struct before an event's arguments, in a prototype of its
    /// own at the end of the blob.
    ///
    /// # Errors
    /// When there is no such event or struct.
    pub fn insert_argument(&mut self, event: &str, owner: &str) -> anyhow::Result<()> {
        let (typedef, proto) = self.event(event)?;
        let owner = self.find(STRUCT, owner)?.first().copied();
        let owner = owner.with_context(|| format!("no struct for an argument of {event}"))?;
        let place = self.types.iter().position(|at| *at == owner);
        let owner_id = place.context("a struct has no place")? as u32 + 1;
        let params = (self.word(proto + 4)? & 0xffff) as usize;
        let next = self.types.len() as u32 + 1;
        let mut words = vec![0, PTR << 24, owner_id];
        words.extend([0, FUNC_PROTO << 24 | (params as u32 + 1), 0]);
        for nth in 0..params {
            words.extend([0, self.word(proto + 12 + 8 * nth + 4)?]);
            if nth == 0 {
                words.extend([0, next]);
            }
        }
        words.extend([0, PTR << 24, next + 1]);
        self.set(typedef + 8, next + 2);
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|word: &u32| word.to_le_bytes())
            .collect();
        let end = (self.word(4)? + self.word(8)? + self.word(12)?) as usize;
        let added = bytes.len() as u32;
        self.data.splice(end..end, bytes);
        let (types, strings) = (self.word(12)?, self.word(16)?);
        self.set(12, types + added);
        self.set(16, strings + added);
        Ok(())
    }

    /// Places of an event's typedef and of its prototype.
    fn event(&self, event: &str) -> anyhow::Result<(usize, usize)> {
        let typedef = self.find(TYPEDEF, &format!("btf_trace_{event}"))?;
        let typedef = *typedef
            .first()
            .with_context(|| format!("no event {event}"))?;
        let pointer = self.place(self.word(typedef + 8)?)?;
        let proto = self.place(self.word(pointer + 8)?)?;
        if self.word(proto + 4)? >> 24 & 0x1f != FUNC_PROTO {
            bail!("event {event} has no prototype");
        }
        Ok((typedef, proto))
    }

    fn place(&self, id: u32) -> anyhow::Result<usize> {
        let place = self.types.get((id as usize).wrapping_sub(1)).copied();
        place.with_context(|| format!("no type {id}"))
    }

    fn find(&self, kind: u32, name: &str) -> anyhow::Result<Vec<usize>> {
        let mut found = Vec::new();
        for &at in &self.types {
            if self.word(at + 4)? >> 24 & 0x1f == kind && self.name(self.word(at)?)? == name {
                found.push(at);
            }
        }
        Ok(found)
    }

    fn name(&self, offset: u32) -> anyhow::Result<&str> {
        let start = (self.word(4)? + self.word(16)? + offset) as usize;
        let rest = self.data.get(start..).context("a name is cut off")?;
        let end = rest.iter().position(|byte| *byte == 0);
        let name = &rest[..end.context("a name is cut off")?];
        Ok(std::str::from_utf8(name)?)
    }

    fn word(&self, at: usize) -> anyhow::Result<u32> {
        let bytes = self.data.get(at..at + 4).context("BTF is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }

    fn set(&mut self, at: usize, word: u32) {
        self.data[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}
