//! The same filter in fewer instructions, which the kernel translates and tries for each system
//! call whenever a process enters a sandbox: that is most of what entering costs.
//!
//! `seccompiler` asks for one number after the other, in five instructions each. Here a search tree
//! comes first, which ends in what was decided for a number, or goes on in the instructions that
//! look at its arguments. These are copied as they are. A program of another form than the one that
//! is expected stays as it is, so nothing but its speed depends on that.

use seccompiler::{BpfProgram, sock_filter};

/// `A >= k`, `A == k`, a jump, and the end.
const JGE: u16 = 0x35;
const JEQ: u16 = 0x15;
const JA: u16 = 0x05;
const RET: u16 = 0x06;
/// Other conditional jumps: `A > k`, `A & k`.
const JGT: u16 = 0x25;
const JSET: u16 = 0x45;
/// `A` becomes a word of what is known of the call: its number, and the processor.
const LOAD: u16 = 0x20;
const NUMBER: u32 = 0;
const PROCESSOR: u32 = 4;

/// What is decided for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    /// This, in any case.
    Return(u32),
    /// The instructions of this group decide.
    Body(usize),
}

/// What a program consists of, in the form that is expected.
struct Parts<'a> {
    /// It ends unless the processor is the right one, and loads the number.
    header: &'a [sock_filter],
    /// What is decided for each number: each group ends in itself.
    groups: Vec<(u32, BpfProgram)>,
    /// What is returned for all other numbers.
    otherwise: u32,
}

/// The same program, shorter if it is long and has the form that is expected.
pub(crate) fn shorten(program: BpfProgram) -> BpfProgram {
    let short = Parts::of(&program).and_then(|parts| parts.shortened());
    match short {
        Some(short) if short.len() < program.len() => short,
        _ => program,
    }
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn returned(instruction: &sock_filter) -> Option<u32> {
    (instruction.code == RET).then_some(instruction.k)
}

/// The instructions that come after this one: none after an end.
fn successors(place: usize, it: &sock_filter) -> impl Iterator<Item = usize> + use<> {
    let next = place + 1;
    let (one, other) = match it.code {
        RET => (None, None),
        JA => (Some(next + it.k as usize), None),
        JEQ | JGE | JGT | JSET => (
            Some(next + usize::from(it.jt)),
            Some(next + usize::from(it.jf)),
        ),
        _ => (Some(next), None),
    };
    one.into_iter().chain(other)
}

/// These without what is never reached from their first one, if they end in themselves.
fn closed(body: &[sock_filter]) -> Option<BpfProgram> {
    let mut is_reached = vec![false; body.len()];
    let mut open = vec![0];
    while let Some(place) = open.pop() {
        // Jumps lead forward.
        if !std::mem::replace(is_reached.get_mut(place)?, true) {
            open.extend(successors(place, &body[place]));
        }
    }
    let dead = instruction(RET, 0, 0, 0);
    let kept = body.iter().zip(is_reached);
    Some(
        kept.map(|(it, is_reached)| if is_reached { it } else { &dead }.clone())
            .collect(),
    )
}

impl<'a> Parts<'a> {
    fn of(program: &'a [sock_filter]) -> Option<Self> {
        let (header, mut rest) = program.split_at_checked(4)?;
        let is_expected = header[0] == instruction(LOAD, 0, 0, PROCESSOR)
            && header[1] == instruction(JEQ, 1, 0, header[1].k)
            && returned(&header[2]).is_some()
            && header[3] == instruction(LOAD, 0, 0, NUMBER);
        if !is_expected {
            return None;
        }
        let mut groups: Vec<(u32, BpfProgram)> = Vec::new();
        while let [is, to_body, past, ..] = rest {
            let is_group = *is == instruction(JEQ, 0, 1, is.k)
                && *to_body == instruction(JA, 0, 0, 1)
                && past.code == JA;
            if !is_group {
                return None;
            }
            // Of several rules, each has such a jump past it.
            let mut end = 2;
            while let Some(JA) = rest.get(end).map(|it| it.code) {
                end += 1 + rest[end].k as usize;
            }
            groups.push((is.k, closed(rest.get(3..end)?)?));
            rest = &rest[end..];
        }
        let [last] = rest else {
            return None;
        };
        groups.sort_by_key(|(number, _)| *number);
        let are_different = groups.windows(2).all(|two| two[0].0 < two[1].0);
        are_different.then_some(())?;
        Some(Self {
            header,
            groups,
            otherwise: returned(last)?,
        })
    }

    /// From which number on what is decided.
    fn decisions(&self) -> Vec<(u32, Leaf)> {
        let otherwise = Leaf::Return(self.otherwise);
        let mut all = vec![(0, otherwise)];
        let mut decide = |from: u32, leaf: Leaf| {
            if all.last().is_some_and(|(last, _)| *last == from) {
                all.pop();
            }
            if all.last().is_none_or(|(_, last)| *last != leaf) {
                all.push((from, leaf));
            }
        };
        for (place, (number, body)) in self.groups.iter().enumerate() {
            let leaf = match returned(&body[0]) {
                Some(value) => Leaf::Return(value),
                None => Leaf::Body(place),
            };
            decide(*number, leaf);
            if let Some(next) = number.checked_add(1) {
                decide(next, otherwise);
            }
        }
        all
    }

    fn shortened(&self) -> Option<BpfProgram> {
        let mut tree = Tree::default();
        let root = tree.grow(&self.decisions());
        let Tree { nodes, leaves } = tree;
        // Of leaves alone, there is nothing to search.
        let Goal::Node(0) = root else {
            return None;
        };
        let mut program = self.header.to_vec();
        for (place, node) in nodes.iter().enumerate() {
            let distance = |goal| {
                let there = match goal {
                    Goal::Node(node) => node,
                    Goal::Leaf(leaf) => nodes.len() + leaf,
                };
                // Conditional jumps are short.
                u8::try_from(there - place - 1).ok()
            };
            let (at_least, below) = (distance(node.at_least)?, distance(node.below)?);
            program.push(instruction(JGE, at_least, below, node.number));
        }
        let mut bodies = Vec::new();
        for (place, leaf) in leaves.iter().enumerate() {
            program.push(match leaf {
                Leaf::Return(value) => instruction(RET, 0, 0, *value),
                Leaf::Body(body) => {
                    let distance = leaves.len() - place - 1 + bodies.len();
                    bodies.extend_from_slice(&self.groups[*body].1);
                    instruction(JA, 0, 0, distance as u32)
                }
            });
        }
        program.append(&mut bodies);
        Some(program)
    }
}

/// Finds what is decided for the number in `A`: its nodes come first, and then its leaves.
#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
}

struct Node {
    number: u32,
    at_least: Goal,
    below: Goal,
}

/// Where a search goes on.
#[derive(Clone, Copy)]
enum Goal {
    /// Each is after the one that leads to it.
    Node(usize),
    Leaf(usize),
}

impl Tree {
    fn grow(&mut self, decisions: &[(u32, Leaf)]) -> Goal {
        if let [(_, leaf)] = decisions {
            let known = self.leaves.iter().position(|it| it == leaf);
            return Goal::Leaf(known.unwrap_or_else(|| {
                self.leaves.push(*leaf);
                self.leaves.len() - 1
            }));
        }
        let (below, above) = decisions.split_at(decisions.len() / 2);
        let place = self.nodes.len();
        self.nodes.push(Node {
            number: above[0].0,
            at_least: Goal::Leaf(0),
            below: Goal::Leaf(0),
        });
        let (below, at_least) = (self.grow(below), self.grow(above));
        (self.nodes[place].below, self.nodes[place].at_least) = (below, at_least);
        Goal::Node(place)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    use super::*;

    /// What is known of a call, as the kernel has it: number, processor, place, six arguments.
    type Call = [u32; 16];

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], call: &Call) -> u32 {
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let it = &program[at];
            let jumps = |condition: bool| usize::from(if condition { it.jt } else { it.jf });
            at += 1;
            match it.code {
                LOAD => value = call[it.k as usize / 4],
                0x54 => value &= it.k,
                JA => at += it.k as usize,
                JEQ => at += jumps(value == it.k),
                JGT => at += jumps(value > it.k),
                JGE => at += jumps(value >= it.k),
                JSET => at += jumps(value & it.k != 0),
                RET => return it.k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    /// Both decide alike, whatever the call.
    pub(crate) fn assert_same(long: &[sock_filter], short: &[sock_filter]) {
        let processors = [long[1].k, 0x4000_0003, 0];
        // What programs compare arguments with, and its neighbours.
        let mut values: Vec<u32> = long.iter().map(|it| it.k).collect();
        values.sort_unstable();
        values.dedup();
        let near = |it: &u32| [it.wrapping_sub(1), *it, it.wrapping_add(1)];
        let values: Vec<u32> = values.iter().flat_map(near).collect();
        let numbers = (0..1024)
            .chain(values.iter().copied())
            .chain([0x4000_0000, u32::MAX]);
        let mut random = 1_u32;
        for number in numbers {
            for processor in processors {
                let mut call = [0; 16];
                (call[0], call[1]) = (number, processor);
                assert_eq!(run(long, &call), run(short, &call), "{call:?}");
                for turn in 0..200 {
                    for word in &mut call[4..] {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        *word = match turn % 3 {
                            0 => 0,
                            _ => values[random as usize % values.len()],
                        };
                    }
                    assert_eq!(run(long, &call), run(short, &call), "{call:?}");
                }
            }
        }
    }

    fn compiled(rules: BTreeMap<i64, Vec<SeccompRule>>) -> BpfProgram {
        let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Trap);
        let processor = TargetArch::try_from(std::env::consts::ARCH).expect("it is known");
        let filter = SeccompFilter::new(rules, refuse, allow, processor).expect("a filter");
        filter.try_into().expect("a program")
    }

    fn rule(place: u8, value: u64) -> SeccompRule {
        let equal = SeccompCmpOp::Eq;
        let length = SeccompCmpArgLen::Qword;
        let condition = SeccompCondition::new(place, length, equal, value).expect("a condition");
        SeccompRule::new(vec![condition]).expect("a rule")
    }

    #[test]
    fn what_is_decided_stays() {
        let several: [&[i64]; 5] = [&[], &[0], &[5], &[0, 1, 2, 400], &[7, 9, 11, 13, 14, 15]];
        for numbers in several {
            let rules = numbers.iter().map(|it| (*it, Vec::new()));
            let long = compiled(rules.clone().collect());
            assert_same(&long, &shorten(long.clone()));
            let three = vec![rule(0, 3), rule(1, 1 << 40), rule(2, 0)];
            let rules = rules.chain([(6, three), (12, vec![rule(5, 0)])]);
            let many = (20..60).map(|it| (it, Vec::new()));
            let long = compiled(rules.chain(many).collect());
            let short = shorten(long.clone());
            assert_same(&long, &short);
            assert!(
                2 * short.len() < long.len(),
                "{} of {}",
                short.len(),
                long.len()
            );
        }
        // With jumps that are too far for a condition.
        let many = (0..600).map(|it| (2 * it, Vec::new())).collect();
        let long = compiled(many);
        assert_eq!(shorten(long.clone()), long);
    }

    #[test]
    fn a_program_of_another_form_stays() {
        let rules = [(2, vec![rule(0, 3)])].into_iter();
        let program = compiled(rules.chain((3..7).map(|it| (it, Vec::new()))).collect());
        assert!(shorten(program.clone()).len() < program.len());
        for place in 0..program.len() {
            for change in [
                |it: &mut sock_filter| it.code = 0x15,
                |it: &mut sock_filter| it.jt = it.jt.wrapping_add(1),
                |it: &mut sock_filter| it.k = it.k.wrapping_add(1),
            ] {
                let mut other = program.clone();
                change(&mut other[place]);
                if other == program {
                    continue;
                }
                let short = shorten(other.clone());
                // Of another form, or the same in what it decides.
                if short != other {
                    assert_same_where_both_end(&other, &short);
                }
            }
        }
        assert_eq!(shorten(Vec::new()), Vec::new());
    }

    /// A changed program may jump out of itself, which the kernel would not take.
    fn assert_same_where_both_end(long: &[sock_filter], short: &[sock_filter]) {
        for number in 0..8 {
            let mut call = [3; 16];
            (call[0], call[1]) = (number, long[1].k);
            assert_eq!(run(long, &call), run(short, &call), "{call:?}");
        }
    }
}
