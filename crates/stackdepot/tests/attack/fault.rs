//! Faults: before each operation on a shared word, one after the other, the thread dies, or a
//! handler runs.
//!
//! `RUSTFLAGS="--cfg stackdepot_fault" cargo test --release -p stackdepot --test attack fault`,
//! or `cargo xtask fault`. A thread that dies unwinds out of the operation, which has nothing to
//! clean up: the words stay as a kill would leave them, while others go on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use stackdepot::sync::fault::{arm, disarm, watch, watched};

use crate::scene::{MISSING, MISSING_WIDE, OPERATIONS, Operation, Scene, known};
use crate::stacks::Known;

/// A reopen has thousands of steps; every so many are tried.
const REOPEN_STRIDE: usize = 7;

/// Of the places at which a save is overtaken, every so many are tried.
const OVERTAKEN_STRIDE: usize = 11;

struct Death;

/// Runs `attack` with k = 1, 2, ... until it answers that the operation has no k-th step.
fn at_every_step(
    what: &str,
    attack: impl Fn(&Operation, Rc<Scene>, u64) -> Result<Option<u64>, String>,
) {
    let (mut fault_count, mut stack_count) = (0, 0);
    for operation in &OPERATIONS {
        let prepared = Scene::prepare(operation.is_roomy);
        for step in 1.. {
            match attack(operation, Rc::new(prepared.again()), step) {
                Ok(Some(stacks)) => stack_count += stacks,
                Ok(None) if step == 1 => panic!("{} has no step", operation.name),
                Ok(None) => break,
                Err(finding) => {
                    panic!("{what} before step {step} of {}: {finding}", operation.name)
                }
            }
            fault_count += 1;
        }
    }
    println!("fault: {fault_count} {what}, {stack_count} stacks checked, wrong 0");
}

fn die_at(
    operation: &Operation,
    scene: Rc<Scene>,
    step: u64,
    known: &Known,
) -> Result<Option<u64>, String> {
    arm(step, Box::new(|| resume_unwind(Box::new(Death))));
    let ended = catch_unwind(AssertUnwindSafe(|| (operation.run)(&scene)));
    let has_survived = disarm();
    match ended {
        Ok(answer) => answer?,
        Err(cause) if cause.is::<Death>() => {}
        Err(cause) => resume_unwind(cause),
    }
    if has_survived {
        return Ok(None);
    }
    let mut stacks = scene.check_readable(known)?;
    stacks += scene.check_reopened(known)?;
    // The others go on without a reopen, also after more deaths than this one.
    for salt in 0..3 {
        scene.interfere(step * 3 + salt)?;
    }
    stacks += scene.check_readable(known)?;
    stacks += scene.check_reopened(known)?;
    scene.check_at_rest(known, true)?;
    Ok(Some(stacks))
}

fn interrupt_at(
    operation: &Operation,
    scene: Rc<Scene>,
    step: u64,
    known: &Known,
    handler: fn(&Scene, u64) -> Result<(), String>,
) -> Result<Option<u64>, String> {
    let (inner, found) = (scene.clone(), Rc::new(std::cell::RefCell::new(Ok(()))));
    let outer = found.clone();
    arm(
        step,
        Box::new(move || *outer.borrow_mut() = handler(&inner, step)),
    );
    let answer = (operation.run)(&scene);
    if disarm() {
        return Ok(None);
    }
    found.replace(Ok(()))?;
    answer?;
    scene.let_go()?;
    scene.check_at_rest(known, false).map(Some)
}

#[test]
fn a_thread_may_die_before_any_operation_on_a_shared_word() {
    let known = known();
    at_every_step("deaths", |operation, scene, step| {
        die_at(operation, scene, step, &known)
    });
}

#[test]
fn a_handler_may_run_before_any_operation_on_a_shared_word() {
    let known = known();
    at_every_step("handlers", |operation, scene, step| {
        interrupt_at(operation, scene, step, &known, Scene::interfere)
    });
}

#[test]
fn all_that_is_not_held_may_be_evicted_before_any_operation_on_a_shared_word() {
    let known = known();
    at_every_step("evictions", |operation, scene, step| {
        interrupt_at(operation, scene, step, &known, Scene::evict_everything)
    });
}

#[test]
fn everything_may_be_held_before_any_operation_on_a_shared_word() {
    let known = known();
    at_every_step("holds", |operation, scene, step| {
        interrupt_at(operation, scene, step, &known, |scene, _| {
            scene.hold_everything()
        })
    });
}

#[test]
fn all_may_be_other_stacks_with_leases_before_any_operation_on_a_shared_word() {
    let known = known();
    at_every_step("leases", |operation, scene, step| {
        interrupt_at(operation, scene, step, &known, Scene::lease_everything_anew)
    });
}

/// A save that another overtakes gives its own node back, and has looked at its slot for the last
/// time in that life.
#[test]
fn a_save_may_be_overtaken_and_then_all_be_other_stacks_with_leases() {
    let (known, prepared) = (known(), Scene::prepare(false));
    let (mut pair_count, mut stack_count) = (0, 0);
    for id in [MISSING, MISSING_WIDE] {
        for overtaken in (1..).step_by(OVERTAKEN_STRIDE) {
            let outcome = |later| overtake_at(&prepared, id, overtaken, later, &known);
            let checked: Vec<u64> = (1..).map_while(outcome).collect();
            if checked.is_empty() {
                break;
            }
            pair_count += checked.len();
            stack_count += checked.iter().sum::<u64>();
        }
    }
    assert!(pair_count > 0);
    println!("fault: {pair_count} pairs of handlers, {stack_count} stacks checked, wrong 0");
}

/// Before one step of a save a handler saves the same stack, before a later one the region becomes
/// full of leased stacks; `None` if the save has no such steps.
fn overtake_at(
    prepared: &Scene,
    id: u64,
    overtaken: u64,
    later: u64,
    known: &Known,
) -> Option<u64> {
    let scene = Rc::new(prepared.again());
    let inner = scene.clone();
    let finding = Rc::new(std::cell::RefCell::new(None));
    let outer = finding.clone();
    let lease = {
        let inner = inner.clone();
        move || *outer.borrow_mut() = Some(inner.lease_everything_anew(later))
    };
    arm(
        overtaken,
        Box::new(move || {
            inner.save_and_put(id).unwrap();
            arm(later, Box::new(lease));
        }),
    );
    let answer = scene.save_and_put(id);
    if disarm() {
        return None;
    }
    let outcome = finding
        .take()?
        .and(answer)
        .and_then(|()| scene.let_go())
        .and_then(|()| scene.check_at_rest(known, false));
    let where_ = || format!("stack {id}, overtaken before step {overtaken}, {later} steps later");
    Some(outcome.unwrap_or_else(|finding| panic!("{}: {finding}", where_())))
}

#[test]
fn a_reopen_may_be_cut_short_before_any_operation_on_a_shared_word() {
    let known = known();
    let whole = Scene::prepare(false);
    watch();
    whole.alloc_new().unwrap();
    let late = watched().len() as u64 * 7 / 8;
    let wounded = Scene::prepare(false);
    arm(late, Box::new(|| resume_unwind(Box::new(Death))));
    let died = catch_unwind(AssertUnwindSafe(|| wounded.alloc_new())).is_err();
    assert!(died && !disarm(), "an alloc has {late} operations and more");
    let mut fault_count = 0;
    for step in (1..).step_by(REOPEN_STRIDE) {
        let mut scene = wounded.again();
        arm(step, Box::new(|| resume_unwind(Box::new(Death))));
        let is_whole = catch_unwind(AssertUnwindSafe(|| scene.reopen())).is_ok();
        if disarm() {
            assert!(is_whole);
            break;
        }
        let checked = scene.check_reopened(&known);
        checked.unwrap_or_else(|finding| panic!("reopen cut short before step {step}: {finding}"));
        fault_count += 1;
    }
    println!("fault: {fault_count} reopens cut short, wrong 0");
}
