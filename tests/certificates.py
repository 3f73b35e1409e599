"""What the certificate of an optimizer says that no measurement can.

For every optimizer and wrapper: which variant was chosen where paper and code differ, and the test
of test_particular.py or test_wrappers.py that would fail if it were plain Adam (a wrapper: if it
did nothing).
"""

from typing import NamedTuple


class Certificate(NamedTuple):
    """The words of one row in docs/verification.md."""

    variant: str
    told_apart: str  # the name of a test
    packages: str = ""  # why no real package was compared, where none was


# fmt: off
CERTIFICATES = {
    "sgd": Certificate(
        "momentum as a sum, its velocity behind the learning rate, as Keras and Sutskever et al.",
        "test_sgd_steps_in_proportion",
    ),
    "adagrad": Certificate(
        "optax and Keras: eps under the root, the sum starts at 0.1; paper and torch: eps_in_sqrt=False, at 0",
        "test_adagrad_and_amsgrad_never_forget",
    ),
    "rmsprop": Certificate(
        "optax and Keras: eps under the root, an option puts it outside as torch; the lecture has none",
        "test_rmsprop_turns_at_once",
    ),
    "adadelta": Certificate(
        "the paper, with a learning rate on top that leaves the sums alone, as everywhere",
        "test_adadelta_feels_its_way",
    ),
    "adam": Certificate(
        "algorithm 1 of the paper, as torch; eps_hat is that of its section 2 and of Keras",
        "test_the_paper",
    ),
    "adamw": Certificate(
        "decay times learning rate, as torch, Keras and optax; the paper: times its schedule only",
        "test_the_w_of_adamw_nadamw_adamaxw_decays_without_a_gradient",
    ),
    "nadam": Certificate(
        "optax: a constant b1; with momentum_decay the schedule of paper, torch or Keras",
        "test_nadam_looks_ahead",
    ),
    "nadamw": Certificate(
        "as nadam and adamw",
        "test_nadam_looks_ahead",
    ),
    "adamax": Certificate(
        "torch and optax: eps beside the gradient; the paper has none, Keras eps_in_max=False",
        "test_adamax_divides_by_the_largest_gradient",
    ),
    "adamaxw": Certificate(
        "as adamax and adamw",
        "test_adamax_divides_by_the_largest_gradient",
    ),
    "amsgrad": Certificate(
        "torch and Keras: the largest raw nu, then corrected; the paper corrects nothing, optax first",
        "test_adagrad_and_amsgrad_never_forget",
    ),
    "radam": Certificate(
        "optax: rectified from a length of 5 on; torch: with eps_hat; the paper: from 4, no eps",
        "test_radam_starts_as_sgd",
    ),
    "adabound": Certificate(
        "the authors' code: bias corrected, an eps; the paper has neither and divides by the root of t",
        "test_adabound_and_amsbound_end_as_sgd",
    ),
    "amsbound": Certificate(
        "as adabound",
        "test_amsbound_never_forgets",
    ),
    "adabelief": Certificate(
        "paper, optax and the authors' code without rectification: eps_root joins nu at every step",
        "test_adabelief_steps_far_where_the_gradient_is_foretold",
    ),
    "yogi": Certificate(
        "optax: both means start at 1e-6 and are corrected; the paper corrects no bias",
        "test_yogi_forgets_by_subtraction",
    ),
    "adan": Certificate(
        "paper and authors' code: extrapolated by b2; decay as in AdamW, the authors' no_prox",
        "test_adan_without_differences_is_adam",
    ),
    "laprop": Certificate(
        "the paper: the rate outside the mean; the authors' code has it inside",
        "test_laprop_without_memory_of_squares_is_a_mean_of_signs",
    ),
    "adopt": Certificate(
        "optax and the authors' code: normalised gradients clipped at the fourth root of the count",
        "test_adopt_scales_no_gradient_by_its_own_square",
    ),
    "ademamix": Certificate(
        "paper, authors' code and optax agree; b3 and alpha are constants unless schedules are given",
        "test_ademamix_remembers",
    ),
    "qhadam": Certificate(
        "the authors' qhoptim, with the arguments its documentation recommends",
        "test_qhadam_averages_the_gradient_with_its_mean",
    ),
    "adam_atan2": Certificate(
        "names and defaults of adam_atan2_pytorch, a = 1.27 and b = 1; the authors released no code",
        "test_adam_atan2_knows_no_scale",
    ),
    "lion": Certificate(
        "the paper's algorithm 2, as optax and the authors' code",
        "test_lion_walks_by_the_sign_of_its_own_mixture",
    ),
    "lamb": Certificate(
        "optax: phi is the identity, the ratio 1 where a norm is 0",
        "test_lamb_walks_a_share_of_the_parameters",
    ),
    "adamod": Certificate(
        "the authors' release, eps beside the raw root; its bound follows a schedule at once",
        "test_adamod_holds_its_rates_below_their_mean",
    ),
    "diffgrad": Certificate(
        "the authors' corrected diffGrad_v2, where the paper's friction is of uncorrected sign",
        "test_diffgrad_halves_the_step_where_the_gradient_stays",
    ),
    "padam": Certificate(
        "the authors' code: the largest nu, biases corrected; partial 1/8 as in the paper",
        "test_padam_adapts_in_part",
    ),
    "adamp": Certificate(
        "the authors' release; the axis of output neurons is the last one, as in JAX, or the first",
        "test_adamp_does_not_lengthen_what_has_no_length",
    ),
    "stable_adamw": Certificate(
        "the paper: the divided rate slows the decay too, as optimi; the authors' gist decays in full",
        "test_stable_adamw_slows_down_where_gradients_outgrow_their_second_moment",
    ),
    "swats": Certificate(
        "the paper, each leaf switched by itself; its tolerance is relative",
        "test_swats_becomes_sgd_leaf_by_leaf",
    ),
    "novograd": Certificate(
        "optax: the first nu is the first |g|², decay inside the trace",
        "test_novograd_walks_along_the_gradient_and_not_along_its_signs",
    ),
    "adafactor": Certificate(
        "optax, with decay times the learning rate; torch and Keras bound the rate by 1 / sqrt(t)",
        "test_factors_are_exact_where_squares_are_of_rank_one",
    ),
    "sm3": Certificate(
        "SM3-II of the paper, as optax; an axis of the state for every axis of the parameter",
        "test_sm3_takes_the_smaller_bound_of_row_and_column",
    ),
    "came": Certificate(
        "the authors' release; the paper says nothing of vectors",
        "test_came_goes_faster_where_steps_agree_with_their_mean",
    ),
    "adam_mini": Certificate(
        "the authors' release 1.1.1, its partition by roles in JAX's layouts",
        "test_adam_mini_takes_one_number_for_a_block",
    ),
    "adahessian": Certificate(
        "the authors' code for images: means of |h| over a kernel; the paper averages signed estimates",
        "test_adahessian_is_newton_where_the_curvature_is_known",
    ),
    "shampoo": Certificate(
        "the paper's algorithm 2; momentum and diagonals of long axes as in the authors' code",
        "test_the_first_step_of_shampoo_is_the_nearest_orthogonal_matrix",
    ),
    "soap": Certificate(
        "the authors' code, the first step only starts the matrices; mu stays in the original space",
        "test_steps_turn_with_the_coordinates",
    ),
    "muon": Certificate(
        "optax where roles are the same; embeddings, heads, norms and biases by Adam, unclear leaves refused",
        "test_muon_makes_a_matrix_nearly_orthogonal",
    ),
    "cautious": Certificate(
        "the authors' code: divided by the mean of the mask, 1e-3 at least; the paper: (sum + 1) / size",
        "test_cautious_around_a_direction_decays_everywhere",
    ),
    "mars": Certificate(
        "the paper's approximate form, no correction at the first step, as timm; the authors' code: from 0",
        "test_mars_corrects_by_the_change_and_starts_without",
    ),
    "grokfast": Certificate(
        "the authors' gradfilter_ema",
        "test_the_paper_before",
    ),
    "grokfast_ma": Certificate(
        "the authors' gradfilter_ma, of means",
        "test_the_window_forgets",
    ),
    "clip_update_rms": Certificate(
        "Adafactor's clipping of an update; StableAdamW's, of a gradient, is stable_adamw",
        "test_clipping_without_momentum_is_that_of_stable_adamw_and_with_it_is_not",
        "none has it around any optimizer; compared with NumPy around each of ours",
    ),
    "prodigy": Certificate(
        "the authors' prodigyopt: no bias correction unless asked for, the estimate over all leaves",
        "test_prodigy_finds_the_rate",
    ),
    "dog": Certificate(
        "the authors' release, the norm over all leaves; weight decay decoupled, theirs is L2",
        "test_dog_steps_by_distance_over_gradients",
    ),
    "ldog": Certificate(
        "the authors' release, the norms of every leaf for itself",
        "test_ldog_is_dog_in_every_leaf",
    ),
    "dowg": Certificate(
        "the paper's algorithm 1 with an eps beside the root, as optax",
        "test_dowg_weighs_gradients_by_the_distance",
    ),
    "polynomial_averaging": Certificate(
        "the authors' PolynomialDecayAverager, beside the optimizer, whose updates it leaves alone",
        "test_late_parameters_weigh_more",
    ),
    "exponential_averaging": Certificate(
        "Keras; what is not finite is neither averaged nor overwritten",
        "test_the_average_takes_the_place_of_the_parameters",
    ),
    "accumulate": Certificate(
        "a sum in float32 at least, its mean given on so; optax: a running mean, rounded as gradients",
        "test_the_mean_makes_one_step",
    ),
    "guard": Certificate(
        "skips and clips by a multiple of a running mean of norms; ZClip by standard deviations",
        "test_a_step_that_is_skipped_leaves_no_trace",
        "no package has its rule; compared with NumPy, and with the optimizer on the good gradients",
    ),
    "monitor": Certificate(
        "quantiles of rates from up to 512 coordinates of a leaf, all else from every coordinate",
        "test_the_columns",
        "no package has it; every column compared with NumPy",
    ),
    "tunable": Certificate(
        "what is set stays until it is unset, all else is the program's; optax: the state's for ever",
        "test_every_number_of_every_optimizer",
        "optax.inject_hyperparams has other rules; compared with the plain constructors",
    ),
    "by_path": Certificate(
        "a leaf of two groups, or of none, is refused; optax.partition takes labels",
        "test_groups_are_optimizers_by_themselves",
        "optax.partition, and the optimizers on the groups alone: bit for bit",
    ),
    "layerwise_decay": Certificate(
        "BEiT: embeddings 0, blocks 1 to n, the rest n + 1; timm: the last norm in block n; ELECTRA: the head at n + 2",
        "test_layers_are_groups_with_rates_of_their_own",
        "a power of one number: compared with by_path and optax.partition",
    ),
    "with_state_dtype": Certificate(
        "rounded up or down at random, right on average; to the nearest as optax's mu_dtype on request",
        "test_a_mean_of_squares_sinks_again",
        "no package has it around any optimizer; compared with float32",
    ),
    "with_quantized_state": Certificate(
        "codes right on average, without a 0 for squares; bitsandbytes, torchao: nearest, with a 0",
        "test_what_the_codes_avoid",
        "no package has it around any optimizer; compared with float32",
    ),
    "stochastic_rounding": Certificate(
        "of parameter plus update, decay inside, as torchao; odds of a hash of place and step",
        "test_many_small_steps_add_up",
        "no package has it around any optimizer; compared with float32",
    ),
    "kahan": Certificate(
        "the optimizer sees parameter plus residual, decay inside; optimi decays the parameter alone",
        "test_many_small_steps_add_up",
        "no package has it around any optimizer; compared with float32",
    ),
    "master_weights": Certificate(
        "split by bits as integers, 24 of them right on average; FlashOptim: units of 1/127, nearest",
        "test_32_bits_are_training_in_float32",
        "no package has it around any optimizer; compared with float32",
    ),
    "dadapt_sgd": Certificate(
        "the authors' dadaptation 3.2, but the norm of the first gradient has a coupled decay in it",
        "test_dadapt_sgd_is_dual_averaging_at_the_rate_it_finds",
    ),
    "dadapt_adagrad": Certificate(
        "the authors' dadaptation 3.2: eps outside the root, the sums of squares start at 1e-6",
        "test_dadapt_adagrad_returns_to_the_start",
    ),
    "dadapt_adam": Certificate(
        "the authors' dadaptation 3.2: no bias correction unless asked for, the bound by the old nu",
        "test_dadapt_adam_finds_the_rate",
    ),
    "mechanize": Certificate(
        "the authors' in optax: h is clipped, a reward may be negative; their torch package: neither",
        "test_mechanize_finds_the_rate",
    ),
    "cocob": Certificate(
        "the authors' parameterfree; the rate is the first wealth, in optax a factor of gradients",
        "test_cocob_bets_more_the_longer_it_wins",
    ),
    "momo": Certificate(
        "the authors' momo-opt: the step is divided by the decay, too; in optax only the parameters are",
        "test_momo_is_the_polyak_step_without_momentum",
    ),
    "momo_adam": Certificate(
        "the authors' momo-opt, as momo; far from the bound it is Adam",
        "test_momo_adam_is_adam_until_the_loss_is_small",
    ),
    "schedule_free": Certificate(
        "the authors' wrapper: tx at z, decay at y, weights by rate squared, times d where one is found",
        "test_the_step_and_its_weight_have_the_same_rate",
    ),
    "schedule_free_sgd": Certificate(
        "the authors' SGDScheduleFree; optax reads a warm-up one step apart",
        "test_evaluation_parameters_are_the_averages",
    ),
    "schedule_free_adamw": Certificate(
        "the authors' AdamWScheduleFree; optax reads a warm-up one step apart, Keras weighs all alike",
        "test_evaluation_parameters_are_the_averages",
    ),
    "schedule_free_radam": Certificate(
        "the authors' RAdamScheduleFree: threshold 4, silent before it unless told otherwise",
        "test_evaluation_parameters_are_the_averages",
    ),
}
# fmt: on
