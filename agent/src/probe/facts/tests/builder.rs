//! Builds small BTF blobs, whole or split, for cases that no kernel at hand has.

/// Types appended in order; ids and string offsets follow the base's, if any.
pub struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    next_id: u32,
    first_string: u32,
}

impl Builder {
    pub fn new() -> Self {
        Builder {
            types: Vec::new(),
            strings: vec![0],
            next_id: 1,
            first_string: 0,
        }
    }

    /// Split BTF over a base with that many types (without void) and string bytes.
    pub fn over(base_types: u32, base_strings: u32) -> Self {
        Builder {
            types: Vec::new(),
            strings: Vec::new(),
            next_id: base_types + 1,
            first_string: base_strings,
        }
    }

    fn string(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.first_string + self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A record with that kind's number, vlen, size or type, and body.
    pub fn raw(
        &mut self,
        name: &str,
        kind: u32,
        vlen: u32,
        size_or_type: u32,
        body: &[u32],
    ) -> u32 {
        let name = self.string(name);
        self.types.extend([name, kind << 24 | vlen, size_or_type]);
        self.types.extend(body);
        self.next_id += 1;
        self.next_id - 1
    }

    pub fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.raw(name, 1, 0, bytes, &[bytes * 8])
    }

    pub fn pointer(&mut self, to: u32) -> u32 {
        self.raw("", 2, 0, to, &[])
    }

    /// Members are (name, type, offset in bytes).
    pub fn strct(&mut self, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
        let body: Vec<u32> = members
            .iter()
            .flat_map(|(n, ty, at)| [self.string(n), *ty, at * 8])
            .collect();
        self.raw(name, 4, members.len() as u32, bytes, &body)
    }

    pub fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.raw(name, 8, 0, to, &[])
    }

    /// A tracepoint's typedef; `args` without the `void *__data`.
    pub fn event(&mut self, name: &str, args: &[u32]) -> u32 {
        let data = self.pointer(0);
        let params: Vec<u32> = std::iter::once(data)
            .chain(args.iter().copied())
            .flat_map(|ty| [0, ty])
            .collect();
        let proto = self.raw("", 13, args.len() as u32 + 1, 0, &params);
        let pointer = self.pointer(proto);
        self.typedef(&format!("btf_trace_{name}"), pointer)
    }

    pub fn build(&self) -> Vec<u8> {
        let types = 4 * self.types.len() as u32;
        let header = [0x0001_eb9f, 24, 0, types, types, self.strings.len() as u32];
        let words = header
            .iter()
            .chain(&self.types)
            .flat_map(|word| word.to_le_bytes());
        words.chain(self.strings.iter().copied()).collect()
    }
}
