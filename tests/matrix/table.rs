//! The tables of the guide to the engines, as its readers see them.

use sslfile::{Engine, Role};

const PAGE: &str = include_str!("../../src/docs/engines.md");

/// A table by its first heading: what each line is about, and what stands there for each engine. A line may be about
/// several things.
pub fn table(heading: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let start = format!("| {heading} | `OpenSsl` | `Native`, where that is OpenSSL | `Rustls` |");
    let mut lines = PAGE.lines().skip_while(|line| *line != start);
    assert!(lines.next().is_some(), "no table with the line {start:?}");
    let rows: Vec<_> = lines.skip(1).take_while(|line| line.starts_with('|')).map(row).collect();
    assert!(!rows.is_empty(), "{heading}: an empty table");
    rows
}

fn row(line: &str) -> (Vec<String>, Vec<String>) {
    let line = line.trim_matches('|');
    let mut cells = line.split('|').map(|cell| plain(cell.trim()));
    let names = cells.next().expect("a first cell");
    (names.split(", ").map(str::to_string).collect(), cells.collect())
}

/// Without links and code marks.
fn plain(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell;
    while let Some((before, link)) = rest.split_once('[') {
        let (name, link) = link.split_once("](").expect("a link");
        let (_, behind) = link.split_once(')').expect("the end of a link");
        text.extend([before, name]);
        rest = behind;
    }
    format!("{text}{rest}").replace('`', "")
}

/// The word of a line that counts: what stands behind a comma or a semicolon explains it.
pub fn word(cells: &[String], engine: Engine) -> &str {
    let column = match engine {
        Engine::OpenSsl => 0,
        Engine::Native => 1,
        Engine::Rustls => 2,
        other => panic!("no column for {other:?}"),
    };
    let cell = cells.get(column).unwrap_or_else(|| panic!("no cell for {engine:?} in {cells:?}"));
    let word = cell.split([',', ';', ':']).next().unwrap_or_default();
    match word {
        "if OpenSSL is there" if cfg!(any(feature = "openssl", feature = "native-tls")) => "yes",
        "if OpenSSL is there" => "Unsupported",
        "if the feature openssl is on" if cfg!(feature = "openssl") => "yes",
        "if the feature openssl is on" => "Unsupported",
        word => word,
    }
}

/// Whether a line with this word says that the engine can, in this role.
pub fn can(word: &str, role: Role) -> bool {
    match word {
        "yes" => true,
        "clients" => role == Role::Client,
        "servers" => role == Role::Server,
        "None" | "Unsupported" => false,
        other => panic!("a word without a meaning: {other:?}"),
    }
}

/// Whether a context may have this setting, by the name of the method, in one role at least.
pub fn honours(engine: Engine, setting: &str) -> bool {
    let is_meant = |name: &String| name == setting || *name == format!("{setting}(true)");
    let row = table("setting of a context").into_iter().find(|(names, _)| names.iter().any(is_meant));
    let (_, cells) = row.unwrap_or_else(|| panic!("no line for {setting:?}"));
    word(&cells, engine) != "Unsupported"
}
