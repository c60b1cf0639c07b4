//! What is known about a kernel and what is not: [`ResolvedFacts`], its answers
//! by name, and the filling of it from one BTF blob after another. Hooks state
//! what they need by name and get back what is missing, each with a reason.

use fsyncscope_abi::facts::Facts;

use super::btf::{Btf, BtfError};
use super::catalog::{Catalog, Role};
use super::lookup::LookupError;
use super::preemption::Preemption;
use super::table::{self, Row};

/// Names of the two facts that come from kallsyms.
pub const SYMBOLS: [&str; 2] = ["iomap_dio_bio_end_io", "ext4_end_bio"];

/// A fact that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFact {
    /// Field of [`Facts`], or a requirement as given to [`ResolvedFacts::missing_for`].
    pub name: String,
    /// What was looked for and not found, for the user.
    pub why: String,
    /// BTF told it, and it was seen to be wrong.
    pub is_refuted: bool,
    /// A known fact that says the same in this kernel, so that nothing is lost.
    pub replaced_by: Option<&'static str>,
}

impl MissingFact {
    /// For the user, in one sentence.
    pub fn sentence(&self) -> String {
        let (name, why) = (&self.name, &self.why);
        match name.split_once('=') {
            _ if name.contains(':') => why.clone(),
            _ if self.is_refuted => why.clone(),
            Some((name, _)) if why.starts_with("is ") => format!("{name} {why}"),
            Some((name, _)) => format!("{name} is not known: {why}"),
            None => format!("{name} is not known: {why}"),
        }
    }
}

/// A tracepoint that the programs may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFact {
    /// Directory under tracefs's `events`.
    pub system: &'static str,
    /// Name.
    pub name: &'static str,
    /// Types of its raw arguments as C writes them, where BTF has the event.
    pub args: Option<Vec<String>>,
    /// Whether the kernel image's BTF has it, where alone typed programs find it.
    pub is_in_image: bool,
    /// Whether tracefs lists it; false also where tracefs can't be read.
    pub in_tracefs: bool,
}

/// A function that fexit may be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionFact {
    /// Name.
    pub name: &'static str,
    /// Its id in the kernel image's BTF (`attach_btf_id`), `None` if only a
    /// module has it.
    pub btf_id: Option<u32>,
    /// Its first argument points to a struct of which BTF has no more than the name:
    /// the verifier then refuses any look at the arguments.
    pub is_opaque: bool,
}

/// Everything learnt; owns no BTF.
#[derive(Debug, Clone)]
pub struct ResolvedFacts {
    /// For the programs. Thresholds are left at their defaults.
    pub facts: Facts,
    /// What is not known.
    pub missing: Vec<MissingFact>,
    /// Release, as `uname -r` prints it.
    pub kernel: String,
    /// As `uname -m` prints it, or "unknown"; judged by `struct pt_regs`.
    pub arch: &'static str,
    /// Tracepoints found.
    pub events: Vec<EventFact>,
    /// Functions found.
    pub functions: Vec<FunctionFact>,
    /// Names of the [`table::TRAITS`] that it has.
    pub traits: Vec<&'static str>,
    /// Whether it preempts its own code; BTF does not tell.
    pub preemption: Preemption,
    /// Modules whose own BTF was read.
    pub modules: Vec<String>,
    /// Sources that could not be used, one sentence each.
    pub notes: Vec<String>,
}

impl ResolvedFacts {
    /// Nothing known, every fact missing for the given reason.
    pub fn unknown(kernel: &str, why: &str) -> Self {
        let names = table::ROWS.iter().map(|row| row.name).chain(SYMBOLS);
        let missing = |name: &str| MissingFact {
            name: name.to_owned(),
            why: why.to_owned(),
            is_refuted: false,
            replaced_by: None,
        };
        ResolvedFacts {
            facts: Facts::unknown(),
            missing: names.map(missing).collect(),
            kernel: kernel.to_owned(),
            arch: "unknown",
            events: Vec::new(),
            functions: Vec::new(),
            traits: Vec::new(),
            preemption: Preemption::Unknown,
            modules: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The value of a fact, `None` while it is missing or no such u32 field.
    pub fn get(&self, name: &str) -> Option<u32> {
        let row = table::ROWS.iter().find(|row| row.name == name)?;
        self.find_missing(name)
            .is_none()
            .then(|| (row.get)(&self.facts))
    }

    /// Whether the kernel has the tracepoint, by BTF or by tracefs.
    pub fn has_event(&self, name: &str) -> bool {
        self.events.iter().any(|event| event.name == name)
    }

    /// A tracepoint, if the kernel has it.
    pub fn event(&self, name: &str) -> Option<&EventFact> {
        self.events.iter().find(|event| event.name == name)
    }

    /// Whether the kernel image's BTF has it, so that typed programs can be attached.
    pub fn has_typed_event(&self, name: &str) -> bool {
        self.event(name).is_some_and(|event| event.is_in_image)
    }

    /// Whether the kernel is one of [`table::TRAITS`].
    pub fn has_trait(&self, name: &str) -> bool {
        self.traits.contains(&name)
    }

    /// Whether fexit has that function to attach to, in the kernel image.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions
            .iter()
            .any(|f| f.name == name && f.btf_id.is_some())
    }

    /// The first of these functions that fexit can be attached to.
    ///
    /// # Errors
    /// Why there is none.
    pub fn traceable(&self, names: &[&'static str]) -> Result<&'static str, String> {
        let known = |name: &&&'static str| self.has_function(name);
        let name =
            *(names.iter().find(known)).ok_or_else(|| "no such function in BTF".to_owned())?;
        let is_opaque = |function: &FunctionFact| function.name == name && function.is_opaque;
        if self.functions.iter().any(is_opaque) {
            return Err(format!("BTF does not describe the argument of {name}"));
        }
        Ok(name)
    }

    /// Those of a hook's requirements that do not hold. A requirement is the
    /// name of a field of [`Facts`] (`NAME=VALUE` where the programs assume one),
    /// `event:NAME`, `func:NAME`, or `arg:EVENT:INDEX:TYPE`, which only what is
    /// known of the event can refute; of several joined by `|`, one is enough.
    pub fn missing_for(&self, hook_requirements: &[&str]) -> Vec<MissingFact> {
        let unmet = |&requirement: &&str| {
            let mut reasons = Vec::new();
            for choice in requirement.split('|') {
                reasons.push(self.why_not(choice)?);
            }
            Some(MissingFact {
                name: requirement.to_owned(),
                why: reasons.join(", "),
                is_refuted: requirement
                    .split('|')
                    .any(|name| self.find_missing(name).is_some_and(|fact| fact.is_refuted)),
                replaced_by: None,
            })
        };
        hook_requirements.iter().filter_map(unmet).collect()
    }

    fn why_not(&self, requirement: &str) -> Option<String> {
        if let Some(name) = requirement.strip_prefix("event:") {
            return (!self.has_event(name)).then(|| format!("this kernel has no event {name}"));
        }
        if let Some(name) = requirement.strip_prefix("func:") {
            return (!self.has_function(name))
                .then(|| format!("no function {name} in the kernel's BTF"));
        }
        if let Some(rest) = requirement.strip_prefix("arg:") {
            return self.wrong_arg(rest);
        }
        if let Some((name, value)) = requirement.split_once('=') {
            return self.why_not(name).or_else(|| {
                let found = self.get(name).map(|found| found.to_string());
                (found.as_deref() != Some(value))
                    .then(|| format!("is {}, not {value}", found.as_deref().unwrap_or("unknown")))
            });
        }
        if !table::ROWS.iter().any(|row| row.name == requirement) && !SYMBOLS.contains(&requirement)
        {
            return Some(format!("{requirement} is not a fact"));
        }
        self.find_missing(requirement)
            .map(|missing| missing.why.clone())
    }

    /// Of `EVENT:INDEX:TYPE`, what BTF says else.
    fn wrong_arg(&self, requirement: &str) -> Option<String> {
        let mut parts = requirement.splitn(3, ':');
        let (event, index, expected) = (parts.next()?, parts.next()?, parts.next()?);
        let args = self.event(event)?.args.as_ref()?;
        let found = args.get(index.parse::<usize>().ok()?);
        (found.map(String::as_str) != Some(expected)).then(|| {
            format!(
                "argument {index} of {event} is {}, not {expected}",
                found.map_or("missing", String::as_str)
            )
        })
    }

    fn find_missing(&self, name: &str) -> Option<&MissingFact> {
        self.missing.iter().find(|missing| missing.name == name)
    }

    /// Stores a value and takes the fact off the list of the missing.
    pub(super) fn learn(&mut self, name: &str, value: u32) {
        if let Some(row) = table::ROWS.iter().find(|row| row.name == name) {
            (row.set)(&mut self.facts, value);
            self.missing.retain(|missing| missing.name != name);
        }
    }

    /// Takes back facts of which one was seen to be wrong.
    pub fn refute(&mut self, names: &[&str], why: &str) {
        let is_known = |name: &&str| self.get(name).is_some();
        let known: Vec<&str> = names.iter().copied().filter(is_known).collect();
        let why = format!("{} is not as BTF says: {why}", known.join(" or "));
        for name in known {
            self.forget(name, &why);
        }
    }

    fn forget(&mut self, name: &str, why: &str) {
        let Some(row) = table::ROWS.iter().find(|row| row.name == name) else {
            return;
        };
        (row.set)(&mut self.facts, (row.get)(&Facts::unknown()));
        self.missing.push(MissingFact {
            name: name.to_owned(),
            why: why.to_owned(),
            is_refuted: true,
            replaced_by: None,
        });
    }

    /// Notes why a fact stays missing.
    pub(super) fn explain(&mut self, name: &str, why: String) {
        if let Some(missing) = self.missing.iter_mut().find(|missing| missing.name == name) {
            missing.why = why;
        }
    }

    /// Adds what the kernel image's BTF knows.
    pub(super) fn add_kernel(&mut self, btf: &Btf) -> Result<(), BtfError> {
        let catalog = Catalog::build(btf)?;
        self.arch = match (
            is_there(&catalog, "pt_regs.di"),
            is_there(&catalog, "pt_regs.regs[0]"),
        ) {
            (true, false) => "x86_64",
            (false, true) => "aarch64",
            _ => "unknown",
        };
        for &name in table::FUNCTIONS {
            if let Some(id) = catalog.ids(Role::Function, name).next() {
                self.functions.push(FunctionFact {
                    name,
                    btf_id: Some(id),
                    is_opaque: btf.is_opaque_function(id)?,
                });
            }
        }
        self.add_events(&catalog, true)?;
        for &(name, source) in table::TRAITS {
            if catalog.answer(source, &mut |_, _| {}).is_ok() {
                self.traits.push(name);
            }
        }
        for row in table::ROWS {
            match first_answer(&catalog, row) {
                Ok(value) => self.learn(row.name, value),
                Err(LookupError::Malformed(error)) => return Err(error),
                Err(error) => self.explain(row.name, error.to_string()),
            }
        }
        Ok(())
    }

    /// Adds what a module's BTF knows and the kernel image's does not.
    pub(super) fn add_module(&mut self, btf: &Btf) -> Result<(), BtfError> {
        let catalog = Catalog::build(btf)?;
        for &name in table::FUNCTIONS {
            let known = self.functions.iter().any(|f| f.name == name);
            if !known && catalog.ids(Role::Function, name).next().is_some() {
                self.functions.push(FunctionFact {
                    name,
                    btf_id: None,
                    is_opaque: false,
                });
            }
        }
        self.add_events(&catalog, false)?;
        for row in table::ROWS {
            if self.find_missing(row.name).is_some()
                && let Ok(value) = first_answer(&catalog, row)
            {
                self.learn(row.name, value);
            }
        }
        Ok(())
    }

    fn add_events(&mut self, catalog: &Catalog, is_in_image: bool) -> Result<(), BtfError> {
        for &(system, name) in table::EVENTS {
            if !self.has_event(name)
                && let Some(args) = catalog.event_args(name)?
            {
                let args = args.iter().map(|&id| catalog.btf.spelled(id));
                self.events.push(EventFact {
                    system,
                    name,
                    args: Some(args.collect::<Result<_, _>>()?),
                    is_in_image,
                    in_tracefs: false,
                });
            }
        }
        Ok(())
    }

    /// Takes the known layout of what no BTF tells, and marks the missing facts for
    /// which another stands in.
    pub(super) fn complete(&mut self) {
        if self.get("request_size").is_some() {
            for &(name, offset) in table::LAYOUTS {
                if self.find_missing(name).is_some() {
                    self.learn(name, offset);
                }
            }
        }
        for &(name, other) in table::STAND_INS {
            if self.find_missing(other).is_none()
                && let Some(missing) = self.missing.iter_mut().find(|missing| missing.name == name)
            {
                missing.replaced_by = Some(other);
            }
        }
    }
}

fn is_there(catalog: &Catalog, path: &'static str) -> bool {
    catalog
        .answer(table::Source::Offset(path, 8), &mut |_, _| {})
        .is_ok()
}

/// The first source's answer that is one; else the reason of the last that
/// found its struct, which is the nearest miss.
fn first_answer(catalog: &Catalog, row: &Row) -> Result<u32, LookupError> {
    let mut reason = None;
    for &source in row.sources {
        match catalog.answer(source, &mut |_, _| {}) {
            Ok(value) => return Ok(value),
            Err(LookupError::Absent(what)) => {
                reason.get_or_insert(LookupError::Absent(what));
            }
            // Absence moves on to the next source; a contradiction does not.
            Err(error @ LookupError::NoMember { .. }) => reason = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(reason.unwrap_or_else(|| LookupError::Absent(row.name.to_owned())))
}
