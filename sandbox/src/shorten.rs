//! Several filters as one, in few instructions. The kernel translates them whenever a process
//! enters a sandbox, and that is most of what entering costs.
//!
//! `seccompiler` asks for one number after the other, in five instructions each. Here the numbers
//! that are allowed in any case are bits: of each 32 numbers, one comparison of the number's bit
//! with a constant. What looks at arguments has its instructions copied as they are. Programs of
//! another form than the one that is expected are not joined, so nothing but their speed depends
//! on that.
//!
//! The kernel remembers which calls a filter allows in any case, but not through a shift. So this
//! one is tried for each system call, which makes that a few per cent slower.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{BpfProgram, sock_filter};

/// `A >= k`, `A == k`, a jump, and the end.
const JGE: u16 = 0x35;
const JEQ: u16 = 0x15;
const JA: u16 = 0x05;
const RET: u16 = 0x06;
/// Other conditional jumps: `A > k`, `A & k`, `A & X`.
const JGT: u16 = 0x25;
const JSET: u16 = 0x45;
const JSET_X: u16 = 0x4d;
/// `A` becomes a word of what is known of the call (its number, the processor), or a constant.
const LOAD: u16 = 0x20;
const CONSTANT: u16 = 0x00;
const NUMBER: u32 = 0;
const PROCESSOR: u32 = 4;
/// `A &= k`, `A >>= k`, `A <<= X`, and `X = A`.
const AND: u16 = 0x54;
const RIGHT: u16 = 0x74;
const LEFT_X: u16 = 0x6c;
const TAX: u16 = 0x07;
/// What is returned for a call that is allowed.
const ALLOW: u32 = 0x7fff_0000;

/// What a program consists of, in the form that is expected.
struct Parts {
    /// It ends unless the processor is the right one, and loads the number.
    header: BpfProgram,
    /// What is decided for each number, by instructions that end in themselves.
    decisions: BTreeMap<u32, BpfProgram>,
    /// What is returned for all other numbers.
    otherwise: sock_filter,
}

/// One program that allows the calls of these numbers, and otherwise decides as the others do
/// together, if they have the form that is expected: all but the last are about allowed calls, and
/// allow all others.
pub(crate) fn joined(allowed: &BTreeSet<u32>, programs: &[BpfProgram]) -> Option<BpfProgram> {
    let mut allowed = allowed.clone();
    let (last, exceptions) = programs.split_last()?;
    let mut all = Parts::of(last)?;
    for program in exceptions {
        let parts = Parts::of(program)?;
        if parts.header != all.header || parts.otherwise.k != ALLOW {
            return None;
        }
        for (number, body) in parts.decisions {
            allowed.remove(&number).then_some(())?;
            all.decisions.insert(number, body);
        }
    }
    let is_decided = |number| all.decisions.contains_key(number);
    match allowed.iter().any(is_decided) {
        true => None,
        false => all.allowing(&allowed),
    }
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Where the instruction in this place leads to. A jump to a jump leads to where that leads.
#[derive(Clone, Copy)]
enum Next {
    End,
    One(usize),
    /// If so, and if not.
    Two(usize, usize),
}

impl Next {
    fn of(program: &[sock_filter], place: usize) -> Option<Self> {
        let jump = |distance: usize| {
            let mut there = place + 1 + distance;
            while program.get(there)?.code == JA {
                there += 1 + program[there].k as usize;
            }
            Some(there)
        };
        let it = &program[place];
        Some(match it.code {
            RET => Self::End,
            JA => Self::One(jump(it.k as usize)?),
            JEQ | JGE | JGT | JSET | JSET_X => Self::Two(jump(it.jt.into())?, jump(it.jf.into())?),
            // It must be there.
            _ => Self::One(program.get(place + 1).map(|_| place + 1)?),
        })
    }
}

/// These without what is never reached from their first one, if they end in themselves.
fn closed(body: &[sock_filter]) -> Option<BpfProgram> {
    let mut is_reached = vec![false; body.len()];
    let mut open = vec![0];
    while let Some(place) = open.pop() {
        // Jumps lead forward.
        if !std::mem::replace(is_reached.get_mut(place)?, true) {
            match Next::of(body, place)? {
                Next::End => {}
                Next::One(next) => open.push(next),
                Next::Two(one, other) => open.extend([one, other]),
            }
        }
    }
    let is_kept = |place: &usize| is_reached[*place];
    let mut kept = Vec::new();
    for place in (0..body.len()).filter(is_kept) {
        let distance = |to| (place + 1..to).filter(is_kept).count();
        let mut it = body[place].clone();
        match Next::of(body, place)? {
            Next::End => {}
            Next::One(next) if it.code == JA => it.k = u32::try_from(distance(next)).ok()?,
            Next::One(_) => {}
            Next::Two(one, other) => {
                it.jt = u8::try_from(distance(one)).ok()?;
                it.jf = u8::try_from(distance(other)).ok()?;
            }
        }
        kept.push(it);
    }
    Some(kept)
}

/// The same program, whose conditions lead to one place for each value that is returned. `None`: it
/// is too long for that.
fn with_shared_ends(program: &[sock_filter]) -> Option<BpfProgram> {
    let mut all = program.to_vec();
    let mut ends = BTreeMap::new();
    for place in 0..program.len() {
        let Next::Two(one, other) = Next::of(program, place)? else {
            continue;
        };
        let mut distance = |to: usize| {
            let end = &program[to];
            let to = match end.code {
                RET => *ends.entry(end.k).or_insert_with(|| {
                    all.push(end.clone());
                    all.len() - 1
                }),
                _ => to,
            };
            u8::try_from(to - place - 1).ok()
        };
        let (jt, jf) = (distance(one)?, distance(other)?);
        (all[place].jt, all[place].jf) = (jt, jf);
    }
    closed(&all)
}

impl Parts {
    fn of(program: &[sock_filter]) -> Option<Self> {
        let (header, mut rest) = program.split_at_checked(4)?;
        let is_expected = header[0] == instruction(LOAD, 0, 0, PROCESSOR)
            && header[1] == instruction(JEQ, 1, 0, header[1].k)
            && header[2].code == RET
            && header[3] == instruction(LOAD, 0, 0, NUMBER);
        if !is_expected {
            return None;
        }
        let mut decisions = BTreeMap::new();
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
            let body = closed(rest.get(3..end)?)?;
            // Of two about a number, the first decides.
            decisions.insert(is.k, body).is_none().then_some(())?;
            rest = &rest[end..];
        }
        let [otherwise] = rest else {
            return None;
        };
        (otherwise.code == RET).then(|| Self {
            header: header.to_vec(),
            decisions,
            otherwise: otherwise.clone(),
        })
    }

    fn allowing(&self, numbers: &BTreeSet<u32>) -> Option<BpfProgram> {
        // Of which 32 numbers, which ones.
        let mut masks = BTreeMap::<u32, u32>::new();
        for number in numbers {
            *masks.entry(number / 32).or_default() |= 1 << (number % 32);
        }
        let mut program = self.header.clone();
        // X: the bit of the number. A: of which 32 it is.
        program.extend([
            instruction(AND, 0, 0, 31),
            instruction(TAX, 0, 0, 0),
            instruction(CONSTANT, 0, 0, 1),
            instruction(LEFT_X, 0, 0, 0),
            instruction(TAX, 0, 0, 0),
            instruction(LOAD, 0, 0, NUMBER),
            instruction(RIGHT, 0, 0, 5),
        ]);
        let mut to_go = 3 * masks.len();
        for (place, mask) in masks {
            to_go -= 3;
            let (allowed, other) = (u8::try_from(to_go + 1).ok()?, u8::try_from(to_go + 2).ok()?);
            program.extend([
                instruction(JEQ, 0, 2, place),
                instruction(CONSTANT, 0, 0, mask),
                instruction(JSET_X, allowed, other, 0),
            ]);
        }
        program.extend([
            instruction(JA, 0, 0, 1),
            instruction(RET, 0, 0, ALLOW),
            instruction(LOAD, 0, 0, NUMBER),
        ]);
        for (number, body) in &self.decisions {
            program.push(instruction(JEQ, 0, u8::try_from(body.len()).ok()?, *number));
            program.extend_from_slice(body);
        }
        program.push(self.otherwise.clone());
        with_shared_ends(&program).or(Some(program))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    use super::*;

    /// What is known of a call, as the kernel has it: number, processor, place, six arguments.
    type Call = [u32; 16];

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], call: &Call) -> u32 {
        let (mut at, mut value, mut x) = (0, 0_u32, 0_u32);
        loop {
            let it = &program[at];
            let jumps = |condition: bool| usize::from(if condition { it.jt } else { it.jf });
            at += 1;
            match it.code {
                LOAD => value = call[it.k as usize / 4],
                CONSTANT => value = it.k,
                AND => value &= it.k,
                RIGHT => value >>= it.k,
                LEFT_X => value <<= x,
                TAX => x = value,
                JA => at += it.k as usize,
                JEQ => at += jumps(value == it.k),
                JGT => at += jumps(value > it.k),
                JGE => at += jumps(value >= it.k),
                JSET => at += jumps(value & it.k != 0),
                JSET_X => at += jumps(value & x != 0),
                RET => return it.k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    /// Runs several: the action that is the lowest counts, and the first of several errors.
    fn run_all(programs: &[BpfProgram], call: &Call) -> u32 {
        let results = programs.iter().map(|it| run(it, call));
        let action = |it: &u32| (it & 0xffff_0000).cast_signed();
        results.min_by_key(action).expect("there is one")
    }

    /// They decide together as the one does, whatever the call.
    pub(crate) fn assert_same(long: &[BpfProgram], short: &[sock_filter]) {
        let processors = [long[0][1].k, 0x4000_0003, 0];
        // What programs compare arguments with, and its neighbours.
        let mut values: Vec<u32> = long.iter().flatten().map(|it| it.k).collect();
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
                assert_eq!(run_all(long, &call), run(short, &call), "{call:?}");
                for turn in 0..200 {
                    for word in &mut call[4..] {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        *word = match turn % 3 {
                            0 => 0,
                            _ => values[random as usize % values.len()],
                        };
                    }
                    assert_eq!(run_all(long, &call), run(short, &call), "{call:?}");
                }
            }
        }
    }

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> BpfProgram {
        let processor = TargetArch::try_from(std::env::consts::ARCH).expect("it is known");
        let filter = SeccompFilter::new(rules, otherwise, matched, processor).expect("a filter");
        filter.try_into().expect("a program")
    }

    fn compiled(rules: Rules) -> BpfProgram {
        filter(rules, SeccompAction::Trap, SeccompAction::Allow)
    }

    fn rule(place: u8, value: u64) -> SeccompRule {
        let equal = SeccompCmpOp::Eq;
        let length = SeccompCmpArgLen::Qword;
        let condition = SeccompCondition::new(place, length, equal, value).expect("a condition");
        SeccompRule::new(vec![condition]).expect("a rule")
    }

    fn several(numbers: &[u32]) -> BTreeSet<u32> {
        numbers.iter().copied().collect()
    }

    /// That of `rules`, in which these calls are allowed as well.
    fn with(rules: &Rules, numbers: &BTreeSet<u32>) -> BpfProgram {
        let mut all = rules.clone();
        all.extend(numbers.iter().map(|it| (i64::from(*it), Vec::new())));
        compiled(all)
    }

    #[test]
    fn what_is_decided_stays() {
        let three = vec![rule(0, 3), rule(1, 1 << 40), rule(2, 0)];
        let rules: Rules = [(6, three), (12, vec![rule(5, 0)])].into();
        for numbers in [
            &[][..],
            &[0],
            &[5],
            &[0, 1, 2, 400],
            &[7, 9, 31, 32, 63, 64],
        ] {
            let mut numbers = several(numbers);
            for _ in 0..2 {
                let short = joined(&numbers, &[compiled(rules.clone())]).expect("it has the form");
                assert_same(&[with(&rules, &numbers)], &short);
                numbers.extend(20..60);
            }
            let short = joined(&numbers, &[compiled(rules.clone())]).expect("it has the form");
            assert!(3 * short.len() < with(&rules, &numbers).len());
        }
        // With jumps that are too far for a condition.
        let far = (0..90).map(|it| 32 * it).collect();
        assert_eq!(joined(&far, &[compiled(rules)]), None);
        let many = (0..100).map(|it| rule(0, it)).collect();
        assert_eq!(joined(&several(&[]), &[compiled([(1, many)].into())]), None);
    }

    #[test]
    fn several_decide_together() {
        let error = |rules| filter(rules, SeccompAction::Allow, SeccompAction::Errno(38));
        let other = |rules| filter(rules, SeccompAction::Allow, SeccompAction::Errno(1));
        let missing = error([(7, Vec::new()), (9, vec![rule(0, 31)])].into());
        let denied = other([(8, vec![rule(1, 4)])].into());
        let rules: Rules = [(3, vec![rule(0, 2)])].into();
        let last = compiled(rules.clone());
        let numbers = several(&[1, 7, 8, 9, 40]);
        let programs = [missing.clone(), denied.clone(), last.clone()];
        let short = joined(&numbers, &programs).expect("they have the form");
        let long = [missing.clone(), denied.clone(), with(&rules, &numbers)];
        assert_same(&long, &short);
        // Where more than one refuses, which one counts is the kernel's to say.
        let twice = [missing.clone(), missing.clone(), last.clone()];
        assert_eq!(joined(&numbers, &twice), None);
        assert_eq!(joined(&several(&[1, 7]), &programs), None);
        assert_eq!(joined(&several(&[3, 7, 8, 9]), &programs), None);
        assert_eq!(joined(&numbers, &[last, missing]), None);
        assert_eq!(joined(&numbers, &[]), None);
    }

    #[test]
    fn a_program_of_another_form_is_not_taken() {
        let rules = [(2, vec![rule(0, 3)]), (5, vec![rule(0, 3), rule(1, 4)])];
        let program = compiled(rules.into());
        let none = BTreeSet::new();
        assert!(joined(&none, std::slice::from_ref(&program)).is_some());
        for place in 0..program.len() {
            for change in [
                |it: &mut sock_filter| it.code = 0x15,
                |it: &mut sock_filter| it.jt = it.jt.wrapping_add(1),
                |it: &mut sock_filter| it.k = it.k.wrapping_add(1),
            ] {
                let mut other = program.clone();
                change(&mut other[place]);
                // Of another form, or the same in what it decides.
                if let Some(short) = joined(&none, std::slice::from_ref(&other)) {
                    assert_same_where_both_end(&other, &short);
                }
            }
        }
        assert_eq!(joined(&none, &[Vec::new()]), None);
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
