//! Reduces a kernel's BTF to the types that the facts table asks for: a valid,
//! self-contained blob of a few kilobytes, for fixtures. In: a full BTF file; out:
//! the extract. Sizes, offsets and names stay as they were; members that nothing
//! asks for are left out, and so are the insides of structs only pointed to.
//!
//! `cargo run --example btf_extract -- /sys/kernel/btf/vmlinux out.btf`

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use fsyncscope::probe::facts::btf::{Btf, Kind, Type};
use fsyncscope::probe::facts::catalog::{Catalog, Role};
use fsyncscope::probe::facts::table;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = args.as_slice() else {
        bail!("usage: btf_extract FULL.btf EXTRACT.btf");
    };
    let data = std::fs::read(input).with_context(|| format!("read {input}"))?;
    let btf = Btf::parse(&data, None).with_context(|| format!("parse {input}"))?;
    let extract = Extract::new(&btf)?.build()?;
    std::fs::write(output, &extract).with_context(|| format!("write {output}"))?;
    println!("{output}: {} bytes", extract.len());
    Ok(())
}

struct Extract<'b, 'd> {
    btf: &'b Btf<'d>,
    /// Members to keep, by struct or union.
    kept: BTreeMap<u32, BTreeSet<usize>>,
    /// Old ids in the order of their new ones, which start at 1.
    order: Vec<u32>,
    new_ids: HashMap<u32, u32>,
    strings: Vec<u8>,
    string_at: HashMap<Vec<u8>, u32>,
}

impl<'b, 'd> Extract<'b, 'd> {
    fn new(btf: &'b Btf<'d>) -> Result<Self> {
        let mut extract = Extract {
            btf,
            kept: BTreeMap::new(),
            order: Vec::new(),
            new_ids: HashMap::new(),
            strings: vec![0],
            string_at: HashMap::from([(Vec::new(), 0)]),
        };
        let catalog = Catalog::build(btf)?;
        for source in table::sources() {
            let mut passed = Vec::new();
            // An answer may be "none"; what it passed on the way counts all the same.
            let _ = catalog.answer(source, &mut |owner, index| passed.push((owner, index)));
            for (owner, index) in passed {
                extract.kept.entry(owner).or_default().insert(index);
            }
        }
        let structs = table::struct_names().map(|name| (Role::Struct, name));
        let enums = table::enum_names().map(|name| (Role::Enum, name));
        let events = table::EVENTS.iter().map(|&(_, name)| (Role::Event, name));
        let functions = table::function_names().map(|name| (Role::Function, name));
        for (role, name) in structs.chain(enums).chain(events).chain(functions) {
            for id in catalog.ids(role, name) {
                extract.id(id);
            }
        }
        Ok(extract)
    }

    /// The new id of an old type, which joins the extract by being asked for.
    fn id(&mut self, old: u32) -> u32 {
        if old == 0 {
            return 0;
        }
        *self.new_ids.entry(old).or_insert_with(|| {
            self.order.push(old);
            self.order.len() as u32
        })
    }

    fn string(&mut self, old: u32) -> Result<u32> {
        let name = self.btf.name(old)?;
        if let Some(&at) = self.string_at.get(name) {
            return Ok(at);
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name);
        self.strings.push(0);
        self.string_at.insert(name.to_vec(), at);
        Ok(at)
    }

    fn build(mut self) -> Result<Vec<u8>> {
        let mut types = Vec::new();
        let mut next = 0;
        while let Some(&old) = self.order.get(next) {
            self.write(self.btf.get(old)?, &mut types)?;
            next += 1;
        }
        let (types_len, strings_len) = (4 * types.len() as u32, self.strings.len() as u32);
        let header = [0x0001_eb9f, 24, 0, types_len, types_len, strings_len];
        let mut blob: Vec<u8> = header
            .into_iter()
            .chain(types)
            .flat_map(u32::to_le_bytes)
            .collect();
        blob.extend(self.strings);
        Ok(blob)
    }

    fn write(&mut self, ty: Type, out: &mut Vec<u32>) -> Result<()> {
        use Kind::*;
        let name = self.string(ty.name_off)?;
        let info =
            |vlen: usize| u32::from(ty.kind_flag) << 31 | (ty.kind as u32) << 24 | vlen as u32;
        let words = || {
            ty.body
                .as_chunks::<4>()
                .0
                .iter()
                .map(|w| u32::from_le_bytes(*w))
        };
        match ty.kind {
            Int => {
                out.extend([name, info(0), ty.size_or_type]);
                out.extend(words());
            }
            Ptr => {
                // A member's function type would drag in half the kernel.
                let target = self.btf.get(ty.size_or_type)?;
                let keep = target.kind != FuncProto || self.is_event_pointer(ty.id)?;
                let id = if keep { self.id(ty.size_or_type) } else { 0 };
                out.extend([name, info(0), id]);
            }
            Typedef | Volatile | Const | Restrict | Func | TypeTag => {
                // A function's linkage is in vlen.
                let linkage = if ty.kind == Func { 1 } else { 0 };
                let id = self.id(ty.size_or_type);
                out.extend([name, info(linkage), id]);
            }
            Array => {
                let words: Vec<u32> = words().collect();
                let (element, index) = (self.id(words[0]), self.id(words[1]));
                out.extend([name, info(0), 0, element, index, words[2]]);
            }
            Struct | Union => {
                let kept = self.kept.get(&ty.id).cloned().unwrap_or_default();
                out.extend([name, info(kept.len()), ty.size_or_type]);
                let words: Vec<u32> = words().collect();
                for index in kept {
                    let member = &words[3 * index..3 * index + 3];
                    let name = self.string(member[0])?;
                    out.extend([name, self.id(member[1]), member[2]]);
                }
            }
            Enum => {
                let values: Vec<(u32, u32)> = ty.enumerators().collect();
                out.extend([name, info(values.len()), ty.size_or_type]);
                for (name_off, value) in values {
                    out.extend([self.string(name_off)?, value]);
                }
            }
            FuncProto => {
                let params: Vec<(u32, u32)> = ty.params().collect();
                let result = self.id(ty.size_or_type);
                out.extend([name, info(params.len()), result]);
                for (name_off, id) in params {
                    out.extend([self.string(name_off)?, self.id(id)]);
                }
            }
            Fwd => out.extend([name, info(0), 0]),
            other => bail!("type {}: {other:?} is not expected below the facts", ty.id),
        }
        Ok(())
    }

    /// Whether this is the pointer of a `btf_trace_*` typedef, a root of ours.
    fn is_event_pointer(&self, id: u32) -> Result<bool> {
        for &old in &self.order {
            let ty = self.btf.get(old)?;
            if ty.kind == Kind::Typedef
                && ty.size_or_type == id
                && self.btf.name(ty.name_off)?.starts_with(b"btf_trace_")
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
