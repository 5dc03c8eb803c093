//! A portfolio: several solvers have the same problem, the first answer wins, and the others are
//! killed.
//!
//! Is there an assignment of true and false that satisfies all clauses of a formula? No solver is
//! good at all formulas. A walk that changes one variable after the other finds an assignment of
//! hundreds of variables in no time, and never ends where there is none; a search that tries both
//! values proves that there is none, and takes years for what the walk finds. Nobody knows
//! beforehand which of them it will be.
//!
//! None of the solvers looks whether somebody wants it to stop, as few real ones do.
//! [`Imap::kill`](procpool::Imap::kill) ends each with its process, wherever it is; its memory is
//! free at once, and a fresh worker has the next problem.
//!
//! ```text
//! $ cargo run --release --example race
//! a hidden assignment  an assignment    1.1ms, by Walk
//! 9 pigeons in 8 holes there is none  286.4ms, by InOrder
//! too many clauses     there is none   17.0ms, by Shortest
//! a long chain         an assignment    2.7ms, by InOrder
//! another hidden one   an assignment   11.9ms, by Shortest
//! 20 solvers were started, 7 were killed
//! ```

use std::error::Error;
use std::time::Instant;

use procpool::{Pool, SpawnPool};
use serde::{Deserialize, Serialize};

/// Clauses of literals: 7 says that variable 7 is true, -7 that it is false, and of each clause one
/// must hold.
#[derive(Clone, Serialize, Deserialize)]
struct Formula {
    variables: usize,
    clauses: Vec<Vec<i32>>,
}

/// The value of each variable; `None`: there is no assignment.
type Answer = Option<Vec<bool>>;

/// How to solve it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Solver {
    /// Tries both values of the first variable that is left.
    InOrder,
    /// The same with the literal that most of the shortest clauses have.
    Shortest,
    /// The same with any literal.
    AnyOrder,
    /// Changes variables of clauses that do not hold.
    Walk,
}

const PORTFOLIO: [Solver; 4] = [
    Solver::InOrder,
    Solver::Shortest,
    Solver::AnyOrder,
    Solver::Walk,
];

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = SpawnPool::builder().processes(PORTFOLIO.len()).build()?;
    let mut random = Random(7);
    let formulas = [
        ("a hidden assignment", hidden(400, 1640, &mut random), true),
        ("9 pigeons in 8 holes", pigeons(9), false),
        ("too many clauses", clauses(140, 840, &mut random), false),
        ("a long chain", chain(3000), true),
        ("another hidden one", hidden(600, 2400, &mut random), true),
    ];
    for (name, formula, is_satisfiable) in formulas {
        let answer = race(&pool, name, &formula)?;
        assert_eq!(answer.is_some(), is_satisfiable);
        assert!(answer.is_none_or(|values| formula.is_satisfied_by(&values)));
    }
    let stats = pool.stats();
    println!(
        "{} solvers were started, {} were killed",
        stats.submitted, stats.workers_lost
    );
    Ok(())
}

/// Lets all solvers solve a formula, and returns the first answer.
fn race(pool: &SpawnPool, name: &str, formula: &Formula) -> Result<Answer, Box<dyn Error>> {
    let begin = Instant::now();
    let problems = PORTFOLIO.map(|solver| (solver, formula.clone()));
    let mut answers = pool.call(solve).chunksize(1).imap_unordered(problems);
    // The first of those that have not crashed.
    let first = answers.find_map(Result::ok);
    answers.kill();

    let (winner, answer) = first.ok_or("all solvers have crashed")?;
    let found = if answer.is_some() {
        "an assignment"
    } else {
        "there is none"
    };
    println!(
        "{name:20} {found:13} {:>8.1?}, by {winner:?}",
        begin.elapsed()
    );
    Ok(answer)
}

fn solve((solver, formula): (Solver, Formula)) -> (Solver, Answer) {
    let answer = match solver {
        Solver::Walk => Some(walk(&formula)),
        solver => Search::new(&formula, solver).run(),
    };
    (solver, answer)
}

impl Formula {
    fn is_satisfied_by(&self, values: &[bool]) -> bool {
        let holds = |literal: &i32| values[variable(*literal)] == (*literal > 0);
        self.clauses.iter().all(|clause| clause.iter().any(holds))
    }

    /// Which clauses have a literal, by the literal's place.
    fn occurrences(&self) -> Vec<Vec<usize>> {
        let mut clauses = vec![Vec::new(); 2 * self.variables];
        for (number, clause) in self.clauses.iter().enumerate() {
            for &literal in clause {
                clauses[place(literal)].push(number);
            }
        }
        clauses
    }
}

fn variable(literal: i32) -> usize {
    literal.unsigned_abs() as usize - 1
}

/// Where something about a literal is kept.
fn place(literal: i32) -> usize {
    2 * variable(literal) + usize::from(literal < 0)
}

/// The search of Davis, Putnam, Logemann and Loveland: tries a value, follows what it entails, and
/// takes it back when that contradicts itself.
struct Search<'a> {
    formula: &'a Formula,
    solver: Solver,
    occurrences: Vec<Vec<usize>>,
    values: Vec<Option<bool>>,
    /// The literals that hold, in the order in which they came to.
    trail: Vec<i32>,
    random: Random,
}

impl<'a> Search<'a> {
    fn new(formula: &'a Formula, solver: Solver) -> Self {
        Self {
            formula,
            solver,
            occurrences: formula.occurrences(),
            values: vec![None; formula.variables],
            trail: Vec::new(),
            random: Random(1),
        }
    }

    fn run(mut self) -> Answer {
        let units = self
            .formula
            .clauses
            .iter()
            .filter(|clause| clause.len() == 1);
        let is_contradicted = units.into_iter().any(|clause| !self.assume(clause[0]));
        (!is_contradicted && self.is_satisfiable()).then(|| {
            self.values
                .iter()
                .map(|value| value.unwrap_or(false))
                .collect()
        })
    }

    fn is_satisfiable(&mut self) -> bool {
        let Some(literal) = self.choose() else {
            return true;
        };
        for literal in [literal, -literal] {
            let before = self.trail.len();
            if self.assume(literal) && self.is_satisfiable() {
                return true;
            }
            for literal in self.trail.drain(before..) {
                self.values[variable(literal)] = None;
            }
        }
        false
    }

    fn value(&self, literal: i32) -> Option<bool> {
        self.values[variable(literal)].map(|value| value == (literal > 0))
    }

    /// Takes a literal to hold, and what follows from that; `false`: it contradicts the others.
    fn assume(&mut self, literal: i32) -> bool {
        let mut next = self.trail.len();
        if !self.set(literal) {
            return false;
        }
        while let Some(&literal) = self.trail.get(next) {
            next += 1;
            for at in 0..self.occurrences[place(-literal)].len() {
                let clause = &self.formula.clauses[self.occurrences[place(-literal)][at]];
                let mut open = clause
                    .iter()
                    .filter(|other| self.value(**other) != Some(false));
                let follows = match (open.next(), open.next()) {
                    (None, _) => return false,
                    (Some(&only), None) => only,
                    _ => continue,
                };
                if !self.set(follows) {
                    return false;
                }
            }
        }
        true
    }

    fn set(&mut self, literal: i32) -> bool {
        match self.value(literal) {
            None => {
                self.values[variable(literal)] = Some(literal > 0);
                self.trail.push(literal);
                true
            }
            Some(holds) => holds,
        }
    }

    /// What to try next, if anything is left.
    fn choose(&mut self) -> Option<i32> {
        let is_left = |variable: &usize| self.values[*variable].is_none();
        let mut left = (0..self.values.len()).filter(is_left);
        match self.solver {
            Solver::Shortest => self.most_frequent(),
            Solver::AnyOrder => {
                let left = Vec::from_iter(left);
                let any = left.get(self.random.below(left.len().max(1)))?;
                Some(*any as i32 + 1)
            }
            _ => Some(left.next()? as i32 + 1),
        }
    }

    /// The literal that counts most in clauses that do not hold yet, a shorter one counting more.
    fn most_frequent(&self) -> Option<i32> {
        let mut weights = vec![0_u32; self.occurrences.len()];
        let mut best = None;
        for clause in &self.formula.clauses {
            if clause
                .iter()
                .any(|literal| self.value(*literal) == Some(true))
            {
                continue;
            }
            let open = clause
                .iter()
                .filter(|literal| self.value(**literal).is_none());
            let weight = if open.clone().count() == 2 { 32 } else { 1 };
            for &literal in open {
                weights[place(literal)] += weight;
                best = best.max(Some((weights[place(literal)], literal)));
            }
        }
        best.map(|(_, literal)| literal)
    }
}

/// WalkSAT, by Selman, Kautz and Cohen: takes a clause that does not hold, and changes one of its
/// variables, that which breaks the fewest other clauses or any. It ends when all hold.
fn walk(formula: &Formula) -> Vec<bool> {
    let mut random = Random(2);
    let occurrences = formula.occurrences();
    let mut values: Vec<bool> = (0..formula.variables)
        .map(|_| random.below(2) == 0)
        .collect();
    let holds = |values: &[bool], literal: i32| values[variable(literal)] == (literal > 0);
    // How many literals of each clause hold.
    let count = |clause: &Vec<i32>| clause.iter().filter(|one| holds(&values, **one)).count();
    let mut counts: Vec<usize> = formula.clauses.iter().map(count).collect();
    let mut broken: Vec<usize> = (0..counts.len()).filter(|at| counts[*at] == 0).collect();
    while !broken.is_empty() {
        let clause = &formula.clauses[broken[random.below(broken.len())]];
        // What holds of other clauses only because of the literal's opposite.
        let breaks = |literal: &&i32| {
            let others = &occurrences[place(-**literal)];
            others.iter().filter(|other| counts[**other] == 1).count()
        };
        let best = clause.iter().min_by_key(breaks).copied();
        let any = clause[random.below(clause.len())];
        let literal = match best {
            Some(best) if random.below(100) < 60 || breaks(&&best) == 0 => best,
            _ => any,
        };
        values[variable(literal)] = literal > 0;
        for &mended in &occurrences[place(literal)] {
            counts[mended] += 1;
        }
        for &other in &occurrences[place(-literal)] {
            counts[other] -= 1;
            if counts[other] == 0 {
                broken.push(other);
            }
        }
        broken.retain(|clause| counts[*clause] == 0);
    }
    values
}

/// This many clauses of three literals each.
fn clauses(variables: usize, clauses: usize, random: &mut Random) -> Formula {
    let mut literal = || {
        let literal = random.below(variables) as i32 + 1;
        if random.below(2) == 0 {
            literal
        } else {
            -literal
        }
    };
    let clauses = (0..clauses).map(|_| vec![literal(), literal(), literal()]);
    Formula {
        variables,
        clauses: clauses.collect(),
    }
}

/// The same, satisfied by an assignment that only this function knows.
fn hidden(variables: usize, count: usize, random: &mut Random) -> Formula {
    let values: Vec<bool> = (0..variables).map(|_| random.below(2) == 0).collect();
    let mut formula = clauses(variables, 2 * count, random);
    let holds = |literal: &i32| values[variable(*literal)] == (*literal > 0);
    formula.clauses.retain(|clause| clause.iter().any(holds));
    formula.clauses.truncate(count);
    formula
}

/// Each pigeon has a hole, and no two have the same; there is a hole too few.
fn pigeons(pigeons: usize) -> Formula {
    let holes = pigeons - 1;
    let is_in = |pigeon: usize, hole: usize| (pigeon * holes + hole) as i32 + 1;
    let mut clauses: Vec<Vec<i32>> = (0..pigeons)
        .map(|pigeon| (0..holes).map(|hole| is_in(pigeon, hole)).collect())
        .collect();
    for hole in 0..holes {
        for one in 0..pigeons {
            clauses.extend((0..one).map(|other| vec![-is_in(one, hole), -is_in(other, hole)]));
        }
    }
    Formula {
        variables: pigeons * holes,
        clauses,
    }
}

/// The first variable holds, and each entails the next one.
fn chain(variables: usize) -> Formula {
    let links = (1..variables as i32).map(|one| vec![-one, one + 1]);
    Formula {
        variables,
        clauses: std::iter::once(vec![1]).chain(links).collect(),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * end as u128) >> 64) as usize
    }
}
