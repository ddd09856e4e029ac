//! CONTRIBUTING.md is right about the house. (`layers` sees to its arrows.)

use std::path::Path;

#[test]
fn the_map_has_every_room() {
    let (_, map) = include_str!("../CONTRIBUTING.md").split_once("| rooms in `src` |").expect("the map");
    let rows = map.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rooms: Vec<_> = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`')).collect();
    for line in include_str!("lib.rs").lines() {
        let Some(room) = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(';')) else { continue };
        let is_test = ["house", "layers", "schedules"].contains(&room);
        assert!(is_test || rooms.contains(&room), "{room} is not on the map");
    }
}

#[test]
fn files_of_the_inner_rooms_can_be_read_in_a_sitting() {
    const MOST: usize = 400;
    let mut folders: Vec<_> = ["src/machine", "src/drive", "src/sys", "sslcat/src"]
        .map(|room| Path::new(env!("CARGO_MANIFEST_DIR")).join(room))
        .into();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("the sources").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let lines = std::fs::read_to_string(&path).expect("a source file").lines().count();
                assert!(lines <= MOST, "{}: {lines} lines", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 40, "{looked_at} files looked at");
}
