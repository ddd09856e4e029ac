//! The map of the house in CONTRIBUTING.md is right: rooms know those below them.

use std::collections::HashMap;
use std::path::Path;

const MAP: &str = include_str!("../CONTRIBUTING.md");

/// Each row of the map: its rooms, and whether they know each other.
fn rows() -> Vec<(Vec<&'static str>, bool)> {
    let (_, map) = MAP.split_once("| rooms in `src` |").expect("the map");
    let rows = map.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let (rooms, what) = row.trim_start_matches('|').split_once('|').expect("two columns");
        (rooms.split('`').skip(1).step_by(2).collect(), what.contains("know each other"))
    })
    .collect()
}

/// In which room a public name is at home.
fn homes() -> HashMap<&'static str, &'static str> {
    let mut homes = HashMap::new();
    for line in include_str!("lib.rs").lines() {
        let Some((room, names)) = line.strip_prefix("pub use ").and_then(|line| line.split_once("::")) else {
            continue;
        };
        for name in names.split(|c: char| !c.is_alphanumeric()).filter(|name| !name.is_empty()) {
            homes.insert(name, room);
        }
    }
    homes
}

fn for_each_source(folder: &Path, act: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).expect("the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            for_each_source(&path, act);
        } else if path.extension().is_some_and(|e| e == "rs") {
            act(&path, &std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn rooms_know_those_below_them_only() {
    let (rows, homes) = (rows(), homes());
    let floor = |room: &str| rows.iter().position(|(rooms, _)| rooms.contains(&room));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for_each_source(&source, &mut |path, text| {
        let inside = path.strip_prefix(&source).expect("inside").to_str().expect("a name");
        let room = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        // For tests only; the world is in a room, and looks around.
        if ["lib", "house", "schedules", "docs"].contains(&room) || inside.starts_with("machine/world") {
            return;
        }
        let from = floor(room).unwrap_or_else(|| panic!("{room} is not on the map"));
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let known = homes.get(used).copied().unwrap_or(used);
                let Some(to) = floor(known) else { continue };
                let is_allowed = known == room || to > from || (to == from && rows[from].1);
                assert!(is_allowed, "{inside}: {room} knows {known}: {}", line.trim());
                looked_at += 1;
            }
        }
    });
    assert!(looked_at > 200, "{looked_at} uses looked at");
}

#[test]
fn the_map_is_complete() {
    let rooms: Vec<_> = rows().into_iter().flat_map(|(rooms, _)| rooms).collect();
    for line in include_str!("lib.rs").lines() {
        let Some(room) = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(';')) else { continue };
        let is_there = rooms.contains(&room) || ["house", "schedules"].contains(&room);
        assert!(is_there, "{room} is not on the map");
    }
    for room in rooms {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "there is no {room}");
    }
}

#[test]
fn files_of_the_inner_rooms_can_be_read_in_a_sitting() {
    const MOST: usize = 400;
    for room in ["machine", "drive", "sys"] {
        for_each_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut |path, text| {
            let lines = text.lines().count();
            assert!(lines <= MOST, "{}: {lines} lines", path.display());
        });
    }
}
