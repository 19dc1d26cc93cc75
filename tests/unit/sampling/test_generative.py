"""The samplers with their own networks: known distributions with stated tolerances, and difficult cases."""

import numpy as np
import pytest
from scipy import stats

from melissa_gen.errors import StudyError
from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.adaptive.conditional_diffusion import (
    ConditionalDiffusion,
    ConditionalDiffusionArguments,
    uniform_over_history,
)
from melissa_gen.sampling.adaptive.diffusion_prior import DiffusionPrior
from melissa_gen.sampling.adaptive.gan import Gan, neighbor_entropy
from melissa_gen.sampling.adaptive.joint import Joint, JointArguments, draw_masks
from melissa_gen.sampling.networks.denoiser import Denoiser
from melissa_gen.sampling.networks.perceptron import Perceptron, train

N = 1500


def unit_prior(d):
    return Prior.from_mapping({f"x{i}": {"low": 0.0, "high": 1.0} for i in range(d)})


def truncated(center, width):
    return stats.truncnorm((0.0 - center) / width, (1.0 - center) / width, center, width)


def history(unit, difficulty, log_ratio=None):
    m = len(unit)
    ratio = np.zeros(m) if log_ratio is None else log_ratio
    number = np.arange(m)
    return EvidenceTable(
        number, unit, difficulty, np.ones(m, dtype=int), ratio, np.ones(m, dtype=bool)
    )


def compare(name, unit, distribution):
    """Prints and returns (mean off in sd, ratio of sd, largest KS distance of an axis)."""
    off = (unit.mean() - distribution.mean()) / distribution.std()
    ratio = unit.std(axis=0).mean() / distribution.std()
    ks = max(stats.kstest(column, distribution.cdf).statistic for column in unit.T)
    print(f"{name}: mean off by {off:+.3f} sd, sd ratio {ratio:.3f}, KS {ks:.3f}")
    return off, ratio, ks


def make_diffusion_prior(d, rng):
    return DiffusionPrior(unit_prior(d), 50, 200, 64, rng)


def make_gan(d, rng):
    return Gan(d, 1.0, 150, 64, rng)


def make_flow(d, rng):
    pytest.importorskip("zuko", reason="the sampler 'flow' needs the package zuko")
    from melissa_gen.sampling.adaptive.flow import FlowArguments, NormalizingFlow

    return NormalizingFlow(d, 1, FlowArguments())


TRAINED = {"diffusion_prior": make_diffusion_prior, "gan": make_gan, "flow": make_flow}


def test_network_gradients_match_finite_differences(rng):
    network = Perceptron([3, 8, 8, 2], rng)
    network.weights = [rng.standard_normal(w.shape) for w in network.weights]  # double precision
    x, out = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    gradient, inputs = network.backward(network.forward(x)[1], out)
    for array, slope in [*zip(network.weights, gradient, strict=True), (x, inputs)]:
        place = tuple(rng.integers(0, size) for size in array.shape)
        array[place] += 1e-5
        above = (network(x) * out).sum()
        array[place] -= 2e-5
        below = (network(x) * out).sum()
        array[place] += 1e-5
        assert (above - below) / 2e-5 == pytest.approx(slope[place], rel=1e-5, abs=1e-8)


def test_network_learns_a_function(rng):
    network = Perceptron([1, 32, 32, 1], rng)
    assert np.all(network(np.ones((3, 1), np.float32)) == 0.0)

    def batch():
        x = rng.uniform(-1.0, 1.0, (128, 1)).astype(np.float32)
        out, kept = network.forward(x)
        error = out - np.sin(4.0 * x)
        return float((error**2).mean()), network.backward(kept, 2.0 * error / 128)[0]

    assert train(network, batch, 400, 5e-3) < 1e-3


def test_the_entropy_gradient_matches_finite_differences(rng):
    unit = rng.random((40, 3))
    _, gradient = neighbor_entropy(unit)
    for row in range(5):
        step = np.zeros_like(unit)
        step[row, 1] = 1e-6
        slope = (neighbor_entropy(unit + step)[0] - neighbor_entropy(unit - step)[0]) / 2e-6
        assert slope == pytest.approx(gradient[row, 1], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", TRAINED)
def test_without_guidance_it_is_the_prior(name, acquisitions, rng):
    proposer = TRAINED[name](2, rng)
    proposer.fit(history(np.empty((0, 2)), np.empty(0)), acquisitions["flat"](), 1.0, rng)
    unit = proposer.draw(N, acquisitions["flat"](), 1.0, rng)
    _, ratio, ks = compare(name, unit, stats.uniform())
    assert unit.min() >= 0.0 and unit.max() <= 1.0
    assert abs(ratio - 1.0) < 0.06 and ks < 0.07


# (mean in sd, lowest and highest ratio of sd): what each is off by on a bump, stated not hidden.
# Plain guidance is too narrow; the generator has a bias of its entropy's estimate that grows with d.
BUMP = {
    "diffusion_prior": (0.25, 0.65, 0.9),
    "gan": (0.15, 0.9, 1.2),
    "flow": (0.1, 0.93, 1.07),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("d, width", [(1, 0.2), (5, 0.25)])
def test_bump(name, d, width, acquisitions, rng):
    kind = acquisitions["bump"](0.6, width)
    proposer = TRAINED[name](d, rng)
    nothing = history(np.empty((0, d)), np.empty(0))
    proposer.fit(nothing, kind, 1.0, rng)
    if name != "diffusion_prior":  # whose fit does not depend on the acquisition
        proposer.fit(nothing, kind, 1.0, rng)
    off, ratio, _ = compare(
        f"{name} d={d}", proposer.draw(N, kind, 1.0, rng), truncated(0.6, width)
    )
    worst, low, high = BUMP[name]
    assert abs(off) < worst and low < ratio < high


@pytest.mark.parametrize("d", [1, 2])
def test_the_flows_density_is_exact_and_the_untrained_flow_is_the_prior(d, acquisitions, rng):
    proposer, kind = make_flow(d, rng), acquisitions["bump"](0.6, 0.2)
    assert np.abs(proposer.log_density(rng.random((200, d)), kind)).max() < 0.1
    proposer.fit(history(np.empty((0, d)), np.empty(0)), kind, 1.0, rng)
    cells = 2000 if d == 1 else 150
    axis = (np.arange(cells) + 0.5) / cells
    unit = np.stack(np.meshgrid(*[axis] * d), axis=-1).reshape(-1, d)
    density = np.exp(proposer.log_density(unit, kind))
    assert density.mean() == pytest.approx(1.0, abs=5e-3)
    distribution = truncated(0.6, 0.2)
    exact = distribution.pdf(unit).prod(axis=1)
    divergence = float((exact * np.log(exact / density)).mean())
    print(f"flow d={d}: KL(target, flow) {divergence:.4f}")
    assert divergence < 0.03


@pytest.mark.parametrize("name", TRAINED)
def test_two_separated_modes(name, acquisitions, rng):
    proposer = TRAINED[name](2, rng)
    kind = acquisitions["two"]()
    proposer.fit(history(np.empty((0, 2)), np.empty(0)), kind, 1.0, rng)
    unit = proposer.draw(N, kind, 1.0, rng)
    low = np.linalg.norm(unit - 0.2, axis=1) < 0.3
    high = np.linalg.norm(unit - 0.8, axis=1) < 0.3
    print(f"{name}: {low.mean():.3f} and {high.mean():.3f}")
    assert (low | high).mean() > 0.88 and 0.3 < low.mean() < 0.7


def test_the_denoisers_pull_back_is_its_jacobian(rng):
    model = Denoiser(2, 20, rng)
    model.fit(rng.uniform(-1.0, 1.0, (500, 2)), np.ones(500), None, 50, rng)
    x, slope = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    pulled = model.pull_back(model.denoise(x, 10)[1], 10, slope)
    for axis in range(2):
        step = np.zeros((4, 2))
        step[:, axis] = 1e-2
        rise = (model.denoise(x + step, 10)[0] - model.denoise(x - step, 10)[0]) / 2e-2
        np.testing.assert_allclose((rise * slope).sum(axis=1), pulled[:, axis], atol=2e-2)


@pytest.mark.slow
def test_proposals_weigh_by_p_over_q_in_the_learned_prior(acquisitions, rng):
    # A history that sits in the upper half with q = 1.9 there and .1 below: weights undo that.
    unit = np.concatenate([rng.uniform(0.5, 1.0, (950, 1)), rng.uniform(0.0, 0.5, (50, 1))])
    log_ratio = -np.log(np.where(unit[:, 0] > 0.5, 1.9, 0.1))
    means = []
    for ratio in (log_ratio, np.zeros(1000)):
        proposer = make_diffusion_prior(1, np.random.default_rng(2))
        proposer.fit(history(unit, np.ones(1000), ratio), acquisitions["flat"](), 1.0, rng)
        means.append(proposer.draw(N, acquisitions["flat"](), 1.0, rng).mean())
    print(f"mean of the learned prior: weighted {means[0]:.3f}, unweighted {means[1]:.3f}")
    assert means[0] == pytest.approx(0.5, abs=0.03) and means[1] > 0.57


@pytest.mark.parametrize("d, width", [(1, 0.2), (5, 0.25)])
def test_conditional_diffusion_without_extra_guidance_follows_difficulty(d, width, rng):
    unit = rng.random((600, d))
    difficulty = np.exp(-0.5 * ((unit - 0.6) ** 2).sum(axis=1) / width**2)
    ratio, state = {}, None
    for guidance in (1.0, 5.0) if d == 5 else (1.0,):
        arguments = ConditionalDiffusionArguments(guidance=guidance, steps=40)
        rule = ConditionalDiffusion(d, arguments, rng)
        if state is None:
            rule.learn(history(unit, difficulty), rng)
            state = rule.state()
        rule.restore(state)  # the guidance has no part in the training
        drawn = rule.propose(N, rng).unit
        name = f"conditional_diffusion d={d} guidance {guidance:g}"
        off, ratio[guidance], _ = compare(name, drawn, truncated(0.6, width))
        if guidance == 1.0:
            assert abs(off) < 0.2 and 0.85 < ratio[guidance] < 1.12
    if d == 5:  # the published scale is far from p(λ | c): printed, and known to be narrow
        assert ratio[5.0] < 0.85


def test_the_debiasing_ratio_is_uniform_over_history_and_not_its_inverse(rng):
    # History of density 2u: uniform / history = 1 / 2u, largest where the history is thin.
    unit = np.sqrt(rng.random((800, 1)))
    weight = uniform_over_history(Perceptron([1, 32, 32, 1], rng), unit, rng)
    exact = np.minimum(1.0 / (2.0 * unit[:, 0]), 10.0)
    assert np.corrcoef(np.log(weight), np.log(exact))[0, 1] > 0.9
    # Under the weights the history looks uniform; under their inverse it would lean further.
    assert np.average(unit[:, 0], weights=weight) == pytest.approx(0.5, abs=0.04)
    assert np.average(unit[:, 0], weights=1.0 / weight) > 0.72 > unit.mean()


def test_conditional_diffusion_has_the_published_settings_and_share():
    arguments = ConditionalDiffusionArguments()
    assert (arguments.guidance, arguments.steps) == (5.0, 100)
    sampler = create("conditional_diffusion", unit_prior(1), 1, arguments={"training_steps": 2})
    shares = []
    for number in range(6):
        points = sampler.suggest(20).points
        sampler.ingest([Evidence(20 * number + i, x, float(x[0])) for i, x in enumerate(points)])
        shares.append(sampler.share)
    np.testing.assert_allclose([0.0, *shares[1:]], [0.0, 0.175, 0.35, 0.525, 0.7, 0.7])


def difficult(rng, m, d, width):
    unit = rng.random((m, d))
    return unit, np.exp(-0.5 * ((unit - 0.6) ** 2).sum(axis=1) / width**2)


@pytest.mark.parametrize("d, width", [pytest.param(1, 0.2, marks=pytest.mark.slow), (5, 0.25)])
def test_joint_follows_the_power_of_difficulty(d, width, rng):
    rule = Joint(d, 1, JointArguments(beta=1.0, steps=25), {})
    rule.learn(history(*difficult(rng, 600, d, width)), rng)
    off, ratio, ks = compare(f"joint d={d}", rule.propose(N, rng).unit, truncated(0.6, width))
    assert abs(off) < 0.2 and 0.85 < ratio < 1.1 and ks < 0.16


def test_the_joint_model_matches_each_conditional(rng):
    # Difficulty is exp(6 (a - b)²): given b = 0.1 and hard, a is large; given b = 0.9, small.
    unit = rng.random((800, 2))
    difficulty = np.exp(6.0 * (unit[:, 0] - unit[:, 1]) ** 2)
    where = {}
    learned = Joint(2, 1, JointArguments(beta=3.0, steps=20), {})
    learned.learn(history(unit, difficulty), rng)
    for b in (0.1, 0.9):
        rule = Joint(2, 2, JointArguments(beta=3.0, steps=20), {1: b})
        rule.restore(learned.state())
        drawn = rule.propose(300, rng).unit
        np.testing.assert_allclose(drawn[:, 1], b)
        where[b] = drawn[:, 0].mean()
    # The other way round: difficulty, given both parameters.
    values = np.tile([np.sqrt(3.0) * 0.8, -np.sqrt(3.0) * 0.8, 0.0], (300, 1))
    far = rule.conditional(values, np.array([True, True, False]), rng)[:, 2].mean()
    values[:, 1] = values[:, 0]
    near = rule.conditional(values, np.array([True, True, False]), rng)[:, 2].mean()
    print(f"a given hard and b: {where}; log difficulty far {far:.2f}, near {near:.2f}")
    assert where[0.1] > 0.7 and where[0.9] < 0.3 and far > near + 1.0


def test_masks_leave_something_to_predict_and_are_of_all_kinds(rng):
    known = draw_masks(2000, 4, rng)
    assert not known.all(axis=1).any()
    kinds = {tuple(row) for row in known}
    assert {(False,) * 4, (False, False, False, True), (True, True, True, False)} <= kinds
    assert len(kinds) == 2**4 - 1


def test_pins_of_joint_by_name():
    prior = Prior.from_mapping({"a": {"low": 0, "high": 2}, "b": {"low": 1, "high": 1}})
    sampler = create("joint", prior, 1, arguments={"given": {"a": 0.5}, "training_steps": 1})
    points = sampler.suggest(8).points
    sampler.ingest([Evidence(i, x, float(x[0])) for i, x in enumerate(points)])
    new = sampler.suggest(40)
    bred = np.array(new.method) == "joint"
    assert bred.any() and np.allclose(new.points[bred], [0.5, 1.0])
    for given, words in [({"aa": 1.0}, "mean 'a'"), ({"b": 1.0}, "no"), ({"a": 9.0}, "outside")]:
        with pytest.raises(StudyError, match=words):
            create("joint", prior, 1, arguments={"given": given})


def test_phased_learns_only_between_its_phases():
    sampler = create("phased", unit_prior(2), 1, arguments={"phase": 20, "size": 256})
    heard = 0
    for _ in range(4):
        proposals = sampler.suggest(10)
        for point in proposals.points:
            sampler.ingest([Evidence(heard, point, float(np.exp(3 * point[0])))])
            heard += 1
        again = [Evidence(heard - 1, proposals.points[-1], 2.0, samples=2)]
        sampler.ingest(again)  # more about an old one does not fill a phase
        sampler.update()
        assert sampler.generation == heard // 20
    assert sampler.share == 0.9  # at once
