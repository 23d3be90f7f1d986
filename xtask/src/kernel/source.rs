//! The kernel's source with our patches and files, kept so that a build after a change is short.
//!
//! Files that a patch touches are kept in `orig` as Debian has them. The patches are applied to a copy
//! of those; only what differs from the tree is then copied over it, so that `make` sees no other change.

use super::Place;
use super::object::Object;
use crate::{Answer, child};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Unpacks the source if it is not there, and brings patches and files up to date.
pub fn prepare(place: &Place, object: &Object) -> Answer<()> {
    let tree = tree(place);
    if !tree.join("Makefile").is_file() {
        println!("kernel: unpacking the source");
        let archive = place
            .work
            .join("deb/source/usr/src/linux-source-6.12.tar.xz");
        let mut tar = Command::new("tar");
        child::must(tar.arg("-xf").arg(archive).arg("-C").arg(&place.work))?;
    }
    patch(place, &tree)?;
    for file in files_below(&place.ours.join("linux"))? {
        let name = file
            .strip_prefix(place.ours.join("linux"))
            .map_err(|e| e.to_string())?;
        copy_if_changed(&file, &tree.join(name))?;
    }
    let folder = tree.join("lib/stackdepot_rs");
    copy_if_changed(&object.any, &folder.join("core.o_shipped"))?;
    copy_if_changed(&object.single, &folder.join("core_up.o_shipped"))
}

/// The source folder.
pub fn tree(place: &Place) -> PathBuf {
    place.work.join("linux-source-6.12")
}

fn patch(place: &Place, tree: &Path) -> Answer<()> {
    let (orig, patched) = (place.work.join("orig"), place.work.join("patched"));
    let patches = files_below(&place.ours.join("patches"))?;
    for name in touched(&patches)? {
        if !orig.join(&name).is_file() {
            copy(&tree.join(&name), &orig.join(&name))?;
        }
    }
    if patched.exists() {
        fs::remove_dir_all(&patched).map_err(|e| format!("{}: {e}", patched.display()))?;
    }
    let kept = files_below(&orig)?;
    for file in &kept {
        let name = file.strip_prefix(&orig).map_err(|e| e.to_string())?;
        copy(file, &patched.join(name))?;
    }
    for file in &patches {
        let mut patch = Command::new("patch");
        patch.args(["-p1", "--quiet", "--no-backup-if-mismatch", "-d"]);
        child::must(patch.arg(&patched).arg("-i").arg(file))?;
    }
    for file in files_below(&patched)? {
        let name = file.strip_prefix(&patched).map_err(|e| e.to_string())?;
        copy_if_changed(&file, &tree.join(name))?;
    }
    Ok(())
}

/// The files of the kernel that the patches change.
fn touched(patches: &[PathBuf]) -> Answer<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in patches {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        names.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("--- a/"))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

/// All files below a folder, sorted by name; none when it is not there.
pub fn files_below(folder: &Path) -> Answer<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry
                .map_err(|e| format!("{}: {e}", folder.display()))?
                .path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn copy_if_changed(from: &Path, to: &Path) -> Answer<()> {
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    if to.is_file() && read(from)? == read(to)? {
        return Ok(());
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Answer<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    fs::write(to, bytes).map_err(|e| format!("{}: {e}", to.display()))
}
