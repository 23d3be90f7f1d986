//! Modules come back as they were added, and no entry is ever a mixture.

use super::*;
use core::ptr::NonNull;

struct Section(Vec<u64>);

impl Section {
    fn of(entry_count: usize) -> Section {
        Section(vec![0; entry_count * MODULE_ENTRY_BYTES / 8])
    }

    fn table(&mut self) -> ModuleTable<'_> {
        let bytes = self.0.len() * 8;
        let base = NonNull::new(self.0.as_mut_ptr().cast()).unwrap();
        // SAFETY: the vector is borrowed for as long as the table lives.
        unsafe { ModuleTable::attach(base, bytes) }
    }

    fn records(&self) -> Vec<ModuleRecord> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes
            .chunks(MODULE_ENTRY_BYTES)
            .filter_map(ModuleRecord::parse)
            .collect()
    }
}

fn module(start: u64, path: &[u8]) -> Module<'_> {
    Module {
        start,
        end: start + 0x1000,
        bias: start - 0x400,
        build_id: &[7; 20],
        path,
    }
}

#[test]
fn module_comes_back_as_it_was_added() {
    let mut section = Section::of(4);
    let long: Vec<u8> = (0..2000).map(|index| b'a' + (index % 26) as u8).collect();
    let table = section.table();
    assert_eq!(
        table.add(&module(0x10000, b"/lib/libc.so.6"), 5),
        Added::New
    );
    let odd = Module {
        build_id: &[1, 2, 3],
        ..module(0x20000, &long)
    };
    assert_eq!(table.add(&odd, 6), Added::New);
    table.mark_unloaded(0x20000, 0x20001, 9);
    let records = section.records();
    assert_eq!(records[0].path, b"/lib/libc.so.6");
    assert_eq!(records[0].build_id, [7; 20]);
    assert_eq!(
        (records[0].start, records[0].end, records[0].bias),
        (0x10000, 0x11000, 0xfc00)
    );
    assert_eq!((records[0].loaded_tsc, records[0].unloaded_tsc), (5, None));
    assert_eq!(records[1].build_id, [1, 2, 3]);
    assert_eq!(records[1].path, long[2000 - MODULE_PATH_BYTES..]);
    assert!(records[1].path_is_cut && !records[0].path_is_cut);
    assert_eq!(records[1].unloaded_tsc, Some(9));
}

#[test]
fn reload_takes_the_old_entry_up_again() {
    let mut section = Section::of(4);
    let table = section.table();
    let plugin = module(0x10000, b"/plugin.so");
    assert_eq!(table.add(&plugin, 1), Added::New);
    assert_eq!(table.add(&plugin, 2), Added::Known);
    for round in 0..500 {
        table.mark_unloaded(plugin.start, plugin.end, 10 + round);
        assert_eq!(table.add(&plugin, 20 + round), Added::Reloaded);
    }
    assert_eq!(table.add(&module(0x10000, b"/other.so"), 3), Added::New);
    assert_eq!(section.records().len(), 2);
}

#[test]
fn full_table_gives_up_the_module_unloaded_longest_ago_and_never_a_loaded_one() {
    let mut section = Section::of(3);
    let table = section.table();
    for index in 1..=3u64 {
        assert_eq!(table.add(&module(index << 16, b"/a"), index), Added::New);
    }
    assert_eq!(table.add(&module(9 << 16, b"/a"), 4), Added::Lost);
    table.mark_unloaded(3 << 16, (3 << 16) + 1, 50);
    table.mark_unloaded_unless(60, |start, _| start != 1 << 16);
    assert_eq!(table.add(&module(9 << 16, b"/a"), 70), Added::Overwrote);
    let starts: Vec<u64> = section
        .records()
        .iter()
        .map(|record| record.start >> 16)
        .collect();
    assert_eq!(starts, [1, 2, 9]);
}

#[test]
fn threads_never_leave_a_mixed_entry() {
    let mut section = Section::of(4);
    let table = section.table();
    let paths: Vec<Vec<u8>> = (0..8u8).map(|index| vec![b'a' + index; 200]).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (table, paths) = (&table, &paths);
            scope.spawn(move || {
                for round in 0..2000u64 {
                    let which = (thread + round) % 8;
                    let path = &paths[which as usize];
                    let start = (which + 1) << 16;
                    let module = Module {
                        build_id: &[which as u8; 20],
                        ..module(start, path)
                    };
                    let _ = table.add(&module, round + 1);
                    table.mark_unloaded(start, start + 1, round + 2);
                }
            });
        }
    });
    for record in section.records() {
        let which = (record.start >> 16) as u8 - 1;
        assert_eq!(record.path, paths[which as usize]);
        assert_eq!(record.build_id, [which; 20]);
    }
}

#[test]
fn hostile_entries_are_no_modules() {
    assert_eq!(ModuleRecord::parse(&[]), None);
    assert_eq!(ModuleRecord::parse(&[0; MODULE_ENTRY_BYTES]), None);
    assert_eq!(ModuleRecord::parse(&[0xff; MODULE_ENTRY_BYTES]), None);
    assert_eq!(ModuleRecord::parse(&[0xfe; MODULE_ENTRY_BYTES]), None);
}
