//! Reads the pictures.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Arrow, Drawn, End, OurEnd, State};

thread_local! {
    static TAKEN: RefCell<BTreeSet<Arrow>> = const { RefCell::new(BTreeSet::new()) };
}

pub(super) fn note(arrow: Arrow) {
    TAKEN.with(|taken| taken.borrow_mut().insert(arrow));
}

const UP: (isize, isize) = (-1, 0);
const DOWN: (isize, isize) = (1, 0);
const LEFT: (isize, isize) = (0, -1);
const RIGHT: (isize, isize) = (0, 1);

/// Where a line goes from here.
fn ways(line: char) -> &'static [(isize, isize)] {
    match line {
        '─' => &[LEFT, RIGHT],
        '│' => &[UP, DOWN],
        '┌' => &[DOWN, RIGHT],
        '┐' => &[DOWN, LEFT],
        '└' => &[UP, RIGHT],
        '┘' => &[UP, LEFT],
        '├' => &[UP, DOWN, RIGHT],
        '┤' => &[UP, DOWN, LEFT],
        '┬' => &[LEFT, RIGHT, DOWN],
        '┴' => &[LEFT, RIGHT, UP],
        '▲' | '▼' | '◀' | '▶' | ' ' => &[],
        other if other.is_alphanumeric() || other.is_ascii_punctuation() => &[],
        other => panic!("what is {other}?"),
    }
}

fn head(way: (isize, isize)) -> char {
    match way {
        UP => '▲',
        DOWN => '▼',
        LEFT => '◀',
        _ => '▶',
    }
}

struct Picture<'a> {
    cells: Vec<Vec<char>>,
    /// Row, first column, and the one behind the last.
    states: Vec<(&'a str, isize, isize, isize)>,
}

impl<'a> Picture<'a> {
    fn new(text: &str, names: &BTreeSet<&'a str>) -> Picture<'a> {
        let cells: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let mut states = Vec::new();
        for (row, line) in cells.iter().enumerate() {
            let mut column = 0;
            for word in line.split(|c| !c.is_alphanumeric()) {
                let word_is: String = word.iter().collect();
                if let Some(&name) = names.get(word_is.as_str()) {
                    states.push((name, row as isize, column as isize, (column + word.len()) as isize));
                }
                column += word.len() + 1;
            }
        }
        Picture { cells, states }
    }

    fn at(&self, row: isize, column: isize) -> char {
        let line = usize::try_from(row).ok().and_then(|row| self.cells.get(row));
        let cell = line.and_then(|line| line.get(usize::try_from(column).ok()?));
        cell.copied().unwrap_or(' ')
    }

    /// The state that a head here, which points there, touches.
    fn touched(&self, (row, column): (isize, isize), way: (isize, isize)) -> &'a str {
        let at = match way {
            UP | DOWN => (row + way.0, column),
            // A space between.
            _ => (row, column + 2 * way.1),
        };
        let is_there = |state: &&(&str, isize, isize, isize)| at.0 == state.1 && (state.2..state.3).contains(&at.1);
        self.states.iter().find(is_there).unwrap_or_else(|| panic!("the head at {row}, {column} touches nothing")).0
    }

    /// From each state along each line that begins at it.
    fn arrows(&self) -> BTreeSet<(&'a str, &'a str)> {
        let mut arrows = BTreeSet::new();
        for &(name, row, from, to) in &self.states {
            let mut begun = vec![((row, from - 2), LEFT), ((row, to + 1), RIGHT)];
            begun.extend((from..to).flat_map(|column| [((row - 1, column), UP), ((row + 1, column), DOWN)]));
            let mut seen = BTreeSet::new();
            while let Some((at, way)) = begun.pop() {
                let cell = self.at(at.0, at.1);
                if cell == head(way) {
                    arrows.insert((name, self.touched(at, way)));
                } else if ways(cell).contains(&(-way.0, -way.1)) && seen.insert(at) {
                    begun.extend(ways(cell).iter().map(|way| ((at.0 + way.0, at.1 + way.1), *way)));
                }
            }
        }
        arrows
    }
}

/// The picture above the enum of this name.
fn picture_of(name: &str) -> String {
    let source = include_str!("../state.rs");
    let (above, _) = source.split_once(&format!("enum {name} {{")).expect("the enum");
    let (_, above) = above.rsplit_once("/// ```text\n").expect("a picture");
    let (picture, _) = above.split_once("/// ```\n").expect("its end");
    picture.lines().map(|line| line.trim_start_matches("///").to_string() + "\n").collect()
}

fn assert_is_drawn<S: Drawn>(name: &str) {
    let list: BTreeSet<_> = S::ARROWS.iter().copied().collect();
    let names: BTreeSet<_> = S::ARROWS.iter().flat_map(|(from, to)| [*from, *to]).collect();
    let drawn = Picture::new(&picture_of(name), &names).arrows();
    assert_eq!(drawn, list, "{name}: drawn, and listed");
}

#[test]
fn the_pictures_are_the_lists() {
    assert_is_drawn::<State>("State");
    assert_is_drawn::<End>("End");
    assert_is_drawn::<OurEnd>("OurEnd");
}

#[test]
fn a_picture_is_read_as_it_is_drawn() {
    let text = "
       A ───▶ B ──┬──▶ C
       │      ▲   │    │
       └─▶ D ─┘   └──▶ E
        not an arrow ──
";
    let names = BTreeSet::from(["A", "B", "C", "D", "E"]);
    let arrows = Picture::new(text, &names).arrows();
    assert_eq!(arrows, BTreeSet::from([("A", "B"), ("A", "D"), ("B", "C"), ("B", "E"), ("D", "B")]));
}

#[test]
#[should_panic = "no arrow is drawn"]
fn a_move_that_is_not_drawn_is_none() {
    End::Over { aborted: false }.move_to(End::Not);
}

#[test]
fn who_has_closed_does_not_open_again() {
    assert!(State::Handshaking.leads_to(State::Closed) && State::Failed.leads_to(State::Closed));
    for before in [State::Open, State::PeerClosed, State::Failed, State::Handshaking] {
        assert!(!State::Closed.leads_to(before) && !State::Closing.leads_to(State::Open));
    }
}

/// The machine moves in no other way, and the simulated world along each arrow.
#[test]
fn each_arrow_is_taken_by_some_seed() {
    let listed: BTreeSet<_> = End::ARROWS.iter().chain(OurEnd::ARROWS).copied().collect();
    let mut missing = listed.clone();
    for seed in 1..10_000 {
        let _ = crate::machine::world::run(seed, Default::default());
        TAKEN.with(|taken| missing.retain(|arrow| !taken.borrow().contains(arrow)));
        if missing.is_empty() {
            return;
        }
    }
    panic!("never taken: {missing:?}");
}

#[test]
fn there_is_one_way_to_move() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine");
    for entry in std::fs::read_dir(folder).expect("the sources").flatten().filter(|entry| entry.path().is_file()) {
        let text = std::fs::read_to_string(entry.path()).expect("a source file");
        for line in text.lines() {
            let assigns = ["end.state = ", ".end = OurEnd", "self.end = "].iter().any(|way| line.contains(way));
            assert!(!assigns, "{}: {line}", entry.path().display());
        }
    }
}
