//! Random requests against a slow and obvious model: budgets are never exceeded, and nothing stays reserved.

use std::collections::HashMap;

use super::*;

/// What happens next. Picks are taken modulo what there is.
#[derive(Debug, Clone)]
enum Move {
    Come {
        who: usize,
        prompt: usize,
        n: u32,
        max_tokens: usize,
        explicit: bool,
    },
    /// So often one token for each sequence of a request, as a step gives them.
    Step(usize, usize),
    Finish(usize),
    Abandon(usize),
    Pass(u64),
    /// The policy changes.
    Reload(u64),
    Tell,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let come = (
        0..WHO.len(),
        1..40usize,
        1..4u32,
        1..400usize,
        any::<bool>(),
    );
    let come = come.prop_map(|(who, prompt, n, max_tokens, explicit)| Move::Come {
        who,
        prompt,
        n,
        max_tokens,
        explicit,
    });
    let one = prop_oneof![
        4 => come,
        30 => (0..8usize, 1..90usize).prop_map(|(pick, times)| Move::Step(pick, times)),
        3 => (0..8usize).prop_map(Move::Finish),
        1 => (0..8usize).prop_map(Move::Abandon),
        1 => (1..40_000u64).prop_map(Move::Pass),
        1 => (200..900u64).prop_map(Move::Reload),
        2 => Just(Move::Tell),
    ];
    proptest::collection::vec(one, 1..400)
}

/// A request that runs.
struct Open {
    admission: Admission,
    who: usize,
    prompt: usize,
    n: u32,
    max_tokens: usize,
    /// Tokens of the sequences that have not ended.
    running: Vec<usize>,
    first_is_due: bool,
}

/// Members of two tenants.
const WHO: [(&str, &str); 3] = [("ann", "x"), ("bob", "x"), ("cat", "y")];

fn who(at: usize) -> Identity {
    Identity::of_tenant_for_tests(WHO[at].0, WHO[at].1)
}

fn policy(most: u64, when_short: WhenShort) -> Arc<Rights> {
    let limit = |measure, per, most| Limit { measure, per, most };
    Arc::new(Rights {
        limits: Arc::new([
            limit(Measure::TokensPerDay, Per::Subject, most),
            limit(Measure::TokensPerDay, Per::Tenant, most + most / 2),
            limit(Measure::TokensPerMonth, Per::Tenant, 4 * most),
            limit(Measure::TokensPerMinute, Per::Subject, 2000),
            limit(Measure::ConcurrentSequences, Per::Tenant, 7),
        ]),
        when_short,
        ..Rights::default()
    })
}

/// What was used, counted by hand: per day and subject, day and tenant, month and tenant.
#[derive(Default)]
struct Tally(HashMap<(String, &'static str), u64>);

impl Tally {
    fn add(&mut self, day: u64, at: usize, tokens: u64) {
        let date = calendar::name(calendar::Span::Day, day);
        let (subject, tenant) = WHO[at];
        let month = date[..7].to_owned();
        for key in [(date.clone(), subject), (date, tenant), (month, tenant)] {
            *self.0.entry(key).or_default() += tokens;
        }
    }

    fn of(&self, period: &str, name: &'static str) -> u64 {
        let key = (period.to_owned(), name);
        self.0.get(&key).copied().unwrap_or(0)
    }
}

fn step(request: &mut Open, day: u64, tally: &mut Tally) {
    let before = request.running.len();
    let mut ended = Vec::new();
    for (index, tokens) in request.running.iter_mut().enumerate() {
        let prompt = match std::mem::take(&mut request.first_is_due) {
            true => request.prompt as u64,
            false => 0,
        };
        tally.add(day, request.who, prompt + 1);
        *tokens += 1;
        let charge = request.admission.charge();
        if *tokens == request.max_tokens || charge == Charge::Spent {
            let first = request.n as usize == before && ended.is_empty();
            let prompt = if first { request.prompt } else { 0 };
            request.admission.settle(used(prompt, *tokens));
            ended.push(index);
        }
    }
    for index in ended.into_iter().rev() {
        request.running.remove(index);
    }
}

fn check(moves: Vec<Move>, when_short: WhenShort) -> Result<(), TestCaseError> {
    let desk = Desk::open();
    let mut second = NOON;
    let mut rights = policy(500, when_short);
    // The most generous limits that were ever in force.
    let mut most = 500;
    let mut tally = Tally::default();
    let mut told: HashMap<([u8; 32], String), u64> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut tell = |desk: &Desk| {
        for record in desk.limits.changed_budgets() {
            let before = told.insert((record.key, record.period), record.tokens);
            assert!(before.is_none_or(|before| before < record.tokens));
        }
        told.clone()
    };
    for next in moves {
        let day = second / 86_400;
        match next {
            Move::Come {
                who: at,
                prompt,
                n,
                max_tokens,
                explicit,
            } => {
                let Ok(admission) = desk.limits.admit(&who(at), &rights) else {
                    continue;
                };
                if admission.reserve(prompt, n, max_tokens, explicit).is_ok() {
                    open.push(Open {
                        admission,
                        who: at,
                        prompt,
                        n,
                        max_tokens,
                        running: vec![0; n as usize],
                        first_is_due: true,
                    });
                }
            }
            Move::Step(pick, times) if !open.is_empty() => {
                let at = pick % open.len();
                for _ in 0..times {
                    let request = &mut open[at];
                    step(request, day, &mut tally);
                    if request.running.is_empty() {
                        open.remove(at);
                        break;
                    }
                }
            }
            Move::Finish(pick) if !open.is_empty() => {
                let at = pick % open.len();
                let request = &mut open[at];
                let tokens = request.running.pop().unwrap();
                let last_of_prompt = request.n as usize == request.running.len() + 1;
                let prompt = match (last_of_prompt, request.first_is_due) {
                    (true, false) => request.prompt,
                    _ => 0,
                };
                request.admission.settle(used(prompt, tokens));
                if request.running.is_empty() {
                    open.remove(at);
                }
            }
            Move::Abandon(pick) if !open.is_empty() => {
                open.remove(pick % open.len());
            }
            Move::Pass(seconds) => {
                second += seconds;
                desk.pass(Duration::from_secs(seconds));
                // The ledger asks each second.
                tell(&desk);
            }
            Move::Reload(new) => {
                rights = policy(new, when_short);
                most = most.max(new);
            }
            Move::Tell => {
                tell(&desk);
            }
            _ => {}
        }
        for ((period, name), &used) in &tally.0 {
            let limit = match (period.len(), name.len()) {
                (7, _) => 4 * most,
                (_, 1) => most + most / 2,
                _ => most,
            };
            prop_assert!(used <= limit, "{name} used {used} of {limit} in {period}");
        }
    }
    drop(open);
    // Idle: nothing is reserved, and all that was used is told.
    let day = second / 86_400;
    let today = calendar::name(calendar::Span::Day, day);
    for (at, (subject, tenant)) in WHO.into_iter().enumerate() {
        let only = |measure, per| Rights {
            limits: Arc::new([Limit {
                measure,
                per,
                most: 1_000_000,
            }]),
            ..Rights::default()
        };
        let taken = |measure, per| {
            let standing = desk.limits.standing(&who(at), &only(measure, per));
            1_000_000 - standing.tokens.unwrap().remaining
        };
        let days = taken(Measure::TokensPerDay, Per::Subject);
        prop_assert_eq!(days, tally.of(&today, subject));
        let days = taken(Measure::TokensPerDay, Per::Tenant);
        prop_assert_eq!(days, tally.of(&today, tenant));
        let months = taken(Measure::TokensPerMonth, Per::Tenant);
        prop_assert_eq!(months, tally.of(&today[..7], tenant));
    }
    let told = tell(&desk);
    for ((period, name), &used) in &tally.0 {
        let at = WHO.iter().position(|who| who.0 == *name || who.1 == *name);
        let identity = who(at.unwrap());
        let per = if name.len() == 1 {
            Per::Tenant
        } else {
            Per::Subject
        };
        let key = (*per.bearer(&identity).as_bytes(), period.clone());
        prop_assert_eq!(told.get(&key), Some(&used), "{} in {}", name, period);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_budget_is_ever_exceeded_and_nothing_stays_reserved(moves in moves(), refuse in any::<bool>()) {
        let when_short = if refuse { WhenShort::Refuse } else { WhenShort::Clamp };
        check(moves, when_short)?;
    }
}

#[test]
fn threads_that_race_for_a_budget_share_it_to_the_last_token() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 50_000)]);
    let used_in_all: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (desk, rights) = (&desk, &rights);
                scope.spawn(move || {
                    let mut sum = 0;
                    loop {
                        let admission = match desk.admit("ann", rights) {
                            Ok(admission) => admission,
                            Err(denied) if denied.error_type() == "insufficient_quota" => break,
                            Err(_) => continue,
                        };
                        match admission.reserve(3, 1, 700, thread % 2 == 0) {
                            Ok(()) => {}
                            Err(denied) if denied.error_type() == "insufficient_quota" => break,
                            Err(_) => continue,
                        }
                        let completion = drink(&admission, 300 + thread);
                        admission.settle(used(3, completion));
                        sum += 3 + completion;
                    }
                    sum
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!((49_990..=50_000).contains(&used_in_all), "{used_in_all}");
    assert_eq!(desk.changed()[0].1, used_in_all as u64);
}
