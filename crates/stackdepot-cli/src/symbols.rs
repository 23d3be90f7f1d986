//! Turns recorded addresses into functions, inlined calls and source lines.
//!
//! [`Symbols`] looks an address up in the recorded modules, makes sure that the file on disk is the
//! one that was recorded (by build-id), and asks `blazesym`. Whatever cannot be known stays `None`
//! and module+offset remain; why is said once per module in [`Symbols::notes`]. Module paths come
//! from a foreign file: only regular files are opened.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blazesym::helper::read_elf_build_id;
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use serde::Serialize;
use stackdepot_region::modules::ModuleRecord;

use crate::text::plain;

/// One call of a stack, or one call that was inlined into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The return address.
    #[serde(serialize_with = "crate::json::address")]
    pub address: u64,
    /// The file that it lies in.
    pub module: Option<Rc<str>>,
    /// The address in that file's own numbering, as addr2line takes it.
    #[serde(serialize_with = "crate::json::optional_address")]
    pub offset: Option<u64>,
    /// The function, demangled.
    pub function: Option<Rc<str>>,
    /// Its source file.
    pub file: Option<Rc<str>>,
    /// The line of the call.
    pub line: Option<u32>,
    /// Whether the function was inlined into the one of the next frame.
    pub inlined: bool,
}

/// Symbolizes the frames of one recording.
pub struct Symbols {
    modules: Vec<Module>,
    symbolizer: Symbolizer,
    known: HashMap<(u64, Option<usize>), Rc<[Frame]>>,
    notes: Vec<String>,
}

struct Module {
    record: ModuleRecord,
    path: PathBuf,
    /// Whether the file on disk is the recorded one; looked at when first needed.
    is_readable: Option<bool>,
}

impl Symbols {
    /// For a recording with these modules.
    pub fn new(records: &[ModuleRecord]) -> Symbols {
        let modules = records.iter().map(|record| Module {
            path: PathBuf::from(OsStr::from_bytes(&record.path)),
            record: record.clone(),
            is_readable: None,
        });
        Symbols {
            modules: modules.collect(),
            symbolizer: Symbolizer::builder().enable_auto_reload(false).build(),
            known: HashMap::new(),
            notes: Vec::new(),
        }
    }

    /// The frames of a stack, innermost first. `tsc` tells which of several modules lay at an
    /// address that was used again; without it the newest counts.
    pub fn stack(&mut self, addresses: &[u64], tsc: Option<u64>) -> Vec<Frame> {
        addresses
            .iter()
            .flat_map(|address| self.resolve(*address, tsc).to_vec())
            .collect()
    }

    /// What could not be looked up, and why; one line for each module.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn resolve(&mut self, address: u64, tsc: Option<u64>) -> Rc<[Frame]> {
        // A return address may be the first byte of the next function: the call is before it.
        let call = address.wrapping_sub(1);
        let module = self.module_at(call, tsc);
        if let Some(frames) = self.known.get(&(address, module)) {
            return Rc::clone(frames);
        }
        let frames: Rc<[Frame]> = self.look_up(address, call, module).into();
        self.known.insert((address, module), Rc::clone(&frames));
        frames
    }

    fn module_at(&self, call: u64, tsc: Option<u64>) -> Option<usize> {
        let covering = || {
            let modules = self.modules.iter().enumerate();
            modules.filter(|(_, module)| (module.record.start..module.record.end).contains(&call))
        };
        let was_loaded = |record: &ModuleRecord, tsc| {
            record.loaded_tsc <= tsc && record.unloaded_tsc.is_none_or(|unloaded| tsc <= unloaded)
        };
        let exact =
            tsc.and_then(|tsc| covering().find(|(_, module)| was_loaded(&module.record, tsc)));
        let newest = || {
            covering().max_by_key(|(_, module)| {
                (
                    module.record.unloaded_tsc.is_none(),
                    module.record.loaded_tsc,
                )
            })
        };
        exact.or_else(newest).map(|(index, _)| index)
    }

    fn look_up(&mut self, address: u64, call: u64, module: Option<usize>) -> Vec<Frame> {
        let Some(index) = module else {
            return vec![Frame {
                address,
                ..Frame::default()
            }];
        };
        let is_readable = self.check(index);
        let Some(module) = self.modules.get(index) else {
            return Vec::new();
        };
        let bare = Frame {
            address,
            module: Some(plain(&String::from_utf8_lossy(&module.record.path)))
                .filter(|path| !path.is_empty())
                .map(Rc::from),
            offset: Some(address.wrapping_sub(module.record.bias)),
            ..Frame::default()
        };
        let offset = call.wrapping_sub(module.record.bias);
        // Nothing lies at the last address of all, and blazesym would count beyond it.
        if !is_readable || offset == u64::MAX {
            return vec![bare];
        }
        let source = Source::from(Elf::new(&module.path));
        match self
            .symbolizer
            .symbolize_single(&source, Input::VirtOffset(offset))
        {
            Ok(Symbolized::Sym(symbol)) => frames_of(&bare, &symbol),
            Ok(Symbolized::Unknown(_)) => vec![bare],
            Err(error) => {
                let note = format!("{}: {error}", module.path.display());
                self.give_up(index, note);
                vec![bare]
            }
        }
    }

    /// Whether the module's file can be asked; decided once.
    fn check(&mut self, index: usize) -> bool {
        let Some(module) = self.modules.get_mut(index) else {
            return false;
        };
        if let Some(is_readable) = module.is_readable {
            return is_readable;
        }
        let verdict = check_file(module);
        module.is_readable = Some(verdict.is_ok());
        match verdict {
            Ok(()) => true,
            Err(note) => {
                self.notes.extend(note);
                false
            }
        }
    }

    fn give_up(&mut self, index: usize, note: String) {
        if let Some(module) = self.modules.get_mut(index) {
            module.is_readable = Some(false);
        }
        self.notes.push(plain(&note));
    }
}

/// `Err(None)`: there is no file by nature (the vDSO), which is nothing to tell.
fn check_file(module: &Module) -> Result<(), Option<String>> {
    let path = &module.path;
    if !path.is_absolute() {
        let is_cut = module.record.path_is_cut;
        return Err(is_cut.then(|| {
            format!(
                "{}: its path was too long to record, so frames in it have no names",
                path.display()
            )
        }));
    }
    let fail = |why: &str| {
        Err(Some(plain(&format!(
            "{}: {why}, so frames in it have no names",
            path.display()
        ))))
    };
    // Never open a pipe or a device that a foreign file names.
    match std::fs::metadata(path) {
        Err(error) => return fail(&crate::failure::reason(&error)),
        Ok(metadata) if !metadata.is_file() => return fail("not a regular file"),
        Ok(_) => {}
    }
    if module.record.build_id.is_empty() {
        return Ok(());
    }
    match read_elf_build_id(Path::new(path)) {
        Ok(Some(found)) if *found == *module.record.build_id => Ok(()),
        Ok(_) => fail("has changed since it was recorded"),
        Err(_) => fail("cannot be read as ELF"),
    }
}

/// Innermost first: the inlined calls, then the function that they were inlined into.
fn frames_of(bare: &Frame, symbol: &Sym<'_>) -> Vec<Frame> {
    let frame = |name: &str, code: Option<&CodeInfo<'_>>, inlined| Frame {
        function: Some(plain(name).into()),
        file: code.map(|code| plain(&code.to_path().to_string_lossy()).into()),
        line: code.and_then(|code| code.line),
        inlined,
        ..bare.clone()
    };
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|call| frame(&call.name, call.code_info.as_ref(), true));
    let function = frame(&symbol.name, symbol.code_info.as_deref(), false);
    inlined.chain(std::iter::once(function)).collect()
}
