//! What of the suite is left out in a sandbox, and why.

/// By reasons: those of the tests, by section and name.
pub(crate) const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "a task starts a program or a process, to see what becomes of it",
        &[
            "cancel::what_a_killed_task_has_started_is_killed_with_it",
            "daemons::a_daemon_that_stays_keeps_no_pool",
            "daemons::a_task_that_becomes_a_daemon_ends_once",
            "daemons::a_task_that_forks_twice_has_one_answer",
            "daemons::a_worker_that_cannot_ring_at_all_says_so",
            "daemons::an_interrupt_ends_what_tasks_have_started",
            "daemons::what_tasks_start_does_not_ignore_interrupts",
            "deadline::what_a_child_of_a_task_has_started_is_killed_as_well",
            "deadline::what_a_task_has_started_is_killed_with_it",
            "death::what_a_dead_task_has_started_goes_with_it",
            "memory::what_a_task_starts_has_the_limit_for_itself",
            "output::a_program_that_outlives_its_worker_keeps_nobody",
            "output::what_programs_of_tasks_print_is_captured",
            "ties::a_program_may_ignore_its_children",
            "ties::a_task_that_forks_has_one_answer",
            "ties::the_system_ends_workers_first",
            "ties::what_is_killed_with_a_worker_is_reaped",
            "ties::what_tasks_have_started_goes_with_the_parent",
        ],
    ),
    (
        "a task builds a pool, which is refused (`confined` sees to it)",
        &[
            "broadcast::a_worker_passes_it_on_to_its_own_pool",
            "descriptors::a_worker_passes_it_on_to_its_own_pool",
            "leaks::nobody_outlives_a_parent_of_pools_in_pools",
            "shared_results::it_goes_on_to_other_pools",
            "shutdown::a_worker_can_have_a_pool",
            "shutdown::a_worker_can_have_a_pool_of_workers_that_have_pools",
            "ties::so_does_what_pools_in_pools_have_started",
        ],
    ),
    (
        "a task signals or traces another process",
        &[
            "death::workers_that_kill_each_other",
            "unkillable::a_closed_pool_ends_without_a_death",
            "unkillable::a_deadline_needs_no_death",
            "unkillable::a_death_that_nobody_reports_is_one",
            "unkillable::a_pool_that_is_dropped_needs_no_death",
            "unkillable::a_pool_that_is_terminated_needs_no_death",
            "unkillable::a_task_is_run_again_before_the_death",
            "unkillable::a_task_that_is_killed_needs_no_death",
            "unkillable::what_was_finished_before_counts",
        ],
    ),
    (
        "a task changes its user, its signals or its ties, or makes an `io_uring`",
        &[
            "broadcast::a_parent_that_cannot_be_reached",
            "descriptor_limits::what_the_system_does_not_pass",
            "descriptors::a_worker_without_rights_gets_all",
            "ties::a_worker_that_changes_its_user_goes_with_the_parent",
            "ties::a_worker_without_its_first_tie_has_another",
            "ties::reading_the_terminal_is_an_error",
            "ties::the_first_tie_is_made_again_after_the_initializer",
        ],
    ),
    (
        "it needs files that the sandbox does not allow, or the program's descriptors in /proc",
        &[
            "deadline::time_in_which_nobody_runs_is_nobodys",
            "descriptor_limits::too_many_on_their_way_for_long",
            "forged_results::a_descriptor_that_is_something_else_by_now",
            "memory::the_out_of_memory_killer_is_told_apart",
            "refused::a_temporary_folder_that_cannot_be_used",
        ],
    ),
    (
        "it forges the number of a worker's first item, which its settings have here",
        &[
            "forged_descriptors::an_honest_forgery_is_taken",
            "forged_descriptors::memory_that_can_change",
            "forged_descriptors::of_an_emitted_value",
            "forged_descriptors::of_another_item",
            "forged_descriptors::what_is_no_memory",
        ],
    ),
    (
        "it kills workers before their first task, which are preparing here, where three such \
         deaths end a pool",
        &[
            "recycling::a_replacement_that_is_killed_while_it_waits_is_replaced",
            "restart_storm::workers_that_never_live_to_work_end_the_pool",
        ],
    ),
];
