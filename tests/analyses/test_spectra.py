"""Spectra of J and of Fisher, and the tokens that their directions move, against the slow and obvious way."""

from __future__ import annotations

import io
import pickle

import naive
import pytest
import torch
from cases import cases, make, shared
from rich.console import Console
from torch import Tensor

import tl_jacobian as tj
from tl_jacobian.analyses import spectra as module
from tl_jacobian.analyses.spectra import fisher_spectrum, jacobian_spectrum
from tl_jacobian.core.graph import Graph
from tl_jacobian.core.linalg import singular
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.render.terminal import terminal
from tl_jacobian.results.spectra import FisherSpectrum, JacobianSpectrum

TEXT = "Paris is in"
every_case = pytest.mark.parametrize(("architecture", "state"), cases())
# The bridge's norms and rotary tables are float32: 2e-7 of the largest (test_linearize.py).
ROUNDING = 3e-6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int) -> Tensor:
    return torch.linalg.qr(randn(n, n, seed=seed))[0]


def linear(j: Tensor, dtype: torch.dtype = torch.float64, weight: Tensor | None = None) -> Linearization:
    """y = J x_1 of a two-token prompt: token 0 has no influence."""
    x = torch.zeros(1, 2, j.shape[1], dtype=dtype, requires_grad=True)
    y = x[:, 1] @ j.T.to(dtype) + randn(len(j), seed=9).to(dtype)
    unembedding = Unembedding((randn(len(j), 50, seed=8) if weight is None else weight).to(dtype))
    value = y[0].detach().to(torch.promote_types(dtype, torch.float32))
    return Linearization(
        y=value,
        logits=unembedding.logits(value),
        tokens=torch.tensor([3, 4]),
        str_tokens=("a", "b"),
        head=unembedding,
        graph=Graph(x, y, 1),
    )


def with_values(values: Tensor) -> Tensor:
    """A square matrix with these singular values."""
    n = len(values)
    return rotation(n, 1) @ torch.diag(values) @ rotation(n, 2)


def decay(n: int) -> Tensor:
    """What language models' Jacobians look like: fast at first, a heavy tail after."""
    return 50 * torch.arange(1, n + 1, dtype=torch.float64) ** -1.0


def ratio(values: Tensor) -> float:
    return (values.square().sum() ** 2 / values.square().square().sum()).item()


def signless(rows: Tensor, others: Tensor) -> Tensor:
    """|cosine| of corresponding unit rows."""
    return (rows * others).sum(1).abs()


# -- the Jacobian ------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("position", [1, -1])
def test_it_is_the_svd_of_the_naive_jacobian(architecture, state, position):
    lin = tj.linearize(shared(architecture, state), TEXT)
    run = naive.run(shared(architecture, state), lin.tokens.tolist())
    j = naive.jacobian(run)[position].double()
    values = torch.linalg.svdvals(j)
    s = jacobian_spectrum(lin, position, k=5)
    scale = values[0].item()
    torch.testing.assert_close(s.singular_values, values[:5], rtol=0, atol=ROUNDING * scale)
    torch.testing.assert_close(
        s.right.double() @ j.T, s.singular_values[:, None] * s.left.double(), rtol=0, atol=ROUNDING * scale
    )
    assert s.text == lin.str_tokens[position]
    assert s.metadata["method"] == "dense"
    assert s.bound.tolist() == [0] * 5
    assert s.squared_norm == pytest.approx(values.square().sum().item(), rel=1e-5)
    assert s.effective_rank == pytest.approx(ratio(values), rel=1e-4)
    assert (s.squared_norm_stderr, s.effective_rank_stderr) == (0, 0)


@pytest.fixture
def matrix_free(monkeypatch):
    monkeypatch.setattr(module, "_DENSE_JACOBIAN", 0)
    monkeypatch.setattr(module, "_PRODUCTS", 0)


@pytest.mark.usefixtures("matrix_free")
@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
def test_without_the_whole_jacobian_it_is_the_same(architecture, state):
    lin = tj.linearize(shared(architecture, state), TEXT)
    values = torch.linalg.svdvals(lin.jacobian([2])[0].double())
    s = jacobian_spectrum(lin, 2, k=2)
    assert ((s.singular_values - values[:2]).abs() <= s.bound + ROUNDING * values[0]).all()
    torch.testing.assert_close(s.left @ s.left.T, torch.eye(2).to(s.left))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_a_large_jacobian_takes_few_products(dtype, k):
    j = with_values(decay(400))
    s = jacobian_spectrum(linear(j, dtype), -1, k)
    rounding = 5e-6 if dtype == torch.float32 else 1e-12
    assert s.metadata["method"] == "block Lanczos"
    assert s.metadata["n_products"] < 0.9 * 400
    assert (s.bound <= 1e-4 * decay(400)[0]).all()
    assert (s.bound > 0).all()
    assert ((s.singular_values - decay(400)[:k]).abs() <= s.bound + rounding * 50).all()
    assert (s.singular_values <= decay(400)[:k] + rounding * 50).all()  # never above the true ones
    residual = s.right.double() @ j.T - s.singular_values[:, None] * s.left.double()
    assert (residual.norm(dim=1) <= s.bound + 10 * rounding * 50).all()
    assert (signless(s.left.double(), rotation(400, 1).T[:k]) > 0.999).all()
    assert (signless(s.right.double(), rotation(400, 2)[:k]) > 0.999).all()


def test_the_tail_is_estimated_within_its_error():
    """Over many seeds: the mean of (estimate - true) / stderr is 0, its spread is 1."""
    lin = linear(with_values(decay(300)))
    true = decay(300)
    norms, ranks = [], []
    for seed in range(60):
        s = jacobian_spectrum(lin, 1, 3, generator=torch.Generator().manual_seed(seed))
        norms.append((s.squared_norm - true.square().sum().item()) / s.squared_norm_stderr)
        ranks.append((s.effective_rank - ratio(true)) / s.effective_rank_stderr)
        assert s.effective_rank == pytest.approx(ratio(true), rel=0.02)
    for errors in map(torch.tensor, (norms, ranks)):
        assert abs(errors.mean()) < 0.45  # 3.5 standard errors of the mean
        assert 0.7 < errors.std() < 1.4


def test_a_flat_spectrum_is_not_mistaken_for_what_was_looked_at():
    """All 300 values equal: the basis found is all that the start was, and the probes see the rest."""
    s = jacobian_spectrum(linear(2 * rotation(300, 3)), 1, 4)
    torch.testing.assert_close(s.singular_values, torch.full((4,), 2.0, dtype=torch.float64))
    assert s.squared_norm == pytest.approx(4 * 300, abs=4 * s.squared_norm_stderr)
    assert s.effective_rank == pytest.approx(300, abs=4 * s.effective_rank_stderr)
    assert s.effective_rank_stderr < 40


def test_values_too_close_to_part_are_taken_all():
    """A slow decay fills the basis without converging: then nothing is approximate."""
    values = torch.linspace(1, 0.9, 300, dtype=torch.float64)
    s = jacobian_spectrum(linear(with_values(values)), 1, 4, rtol=1e-9)
    torch.testing.assert_close(s.singular_values, values[:4])
    assert s.metadata["method"] == "dense"
    assert (s.bound.max(), s.effective_rank_stderr) == (0, 0)
    assert s.effective_rank == pytest.approx(ratio(values))


def test_near_equal_values_span_the_right_directions():
    values = decay(300)
    values[:3] = torch.tensor([60, 60 * (1 - 1e-7), 60 * (1 - 2e-7)])
    s = jacobian_spectrum(linear(with_values(values)), 1, 3)
    torch.testing.assert_close(s.singular_values, values[:3], rtol=1e-6, atol=0)
    true = rotation(300, 1).T[:3]
    torch.testing.assert_close((s.left @ true.T).norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("d_model", [40, 300])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_deficient_jacobian(d_model, rank):
    values = torch.zeros(d_model, dtype=torch.float64)
    values[:rank] = torch.tensor([5.0, 3.0])[:rank]
    s = jacobian_spectrum(linear(with_values(values)), 1, 4)
    torch.testing.assert_close(s.singular_values, values[:4])
    assert s.effective_rank == pytest.approx(ratio(values[:2]) if rank else 0, abs=1e-9)
    assert s.explained == pytest.approx(1 if rank else 0)
    for side in (s.left, s.right):
        torch.testing.assert_close(side @ side.T, torch.eye(4).to(side))


@pytest.mark.parametrize("d_model", [40, 300])
def test_a_token_without_influence(d_model):
    s = jacobian_spectrum(linear(with_values(decay(d_model))), 0, 2)
    assert s.singular_values.tolist() == [0, 0]
    assert s.bound.tolist() == [0, 0]
    assert (s.squared_norm, s.effective_rank, s.explained) == (0, 0, 0)
    s.plot().figure.clear()


def test_embeddings_may_be_narrower_than_the_hidden_state():
    j = randn(30, 12)
    s = jacobian_spectrum(linear(j), 1, 12)
    torch.testing.assert_close(s.singular_values, torch.linalg.svdvals(j))
    assert (s.left.shape, s.right.shape) == ((12, 30), (12, 12))


def refusing(message: str):
    def jvp(self: Linearization, dx: Tensor) -> Tensor:
        raise RuntimeError(message)

    return jvp


def test_a_model_without_second_derivatives_is_taken_whole(monkeypatch):
    lin = linear(with_values(decay(300)))
    monkeypatch.setattr(
        Linearization, "jvp", refusing("derivative for aten::_flash_attention_backward is not implemented")
    )
    s = jacobian_spectrum(lin, 1, 2)
    torch.testing.assert_close(s.singular_values, decay(300)[:2])
    assert (s.metadata["method"], s.metadata["n_products"]) == ("dense", 300)
    monkeypatch.setattr(Linearization, "jvp", refusing("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        jacobian_spectrum(lin, 1, 2)


def test_half_precision_says_how_far_it_got():
    j = with_values(decay(300)).bfloat16()
    s = jacobian_spectrum(linear(j, torch.bfloat16), 1, 4)
    true = torch.linalg.svdvals(j.double())[:4]
    assert s.metadata["method"] == "block Lanczos"
    assert 1e-3 * true[0] < s.bound.max() < 0.07 * true[0]
    assert ((s.singular_values - true).abs() <= s.bound + 0.01 * true[0]).all()


def test_a_jacobian_that_is_not_finite_is_refused():
    lin = linear(with_values(decay(10)) * 1e308 * 1e10)
    with pytest.raises(tj.errors.ContractError, match=r"numbers of a product with the Jacobian are not finite"):
        jacobian_spectrum(lin, 1, 2)


def test_no_global_seed_and_reproducible():
    lin = linear(with_values(decay(300)))
    one, two = (jacobian_spectrum(lin, 1, 2) for _ in range(2))
    assert torch.equal(one.left, two.left)
    assert one.squared_norm == two.squared_norm


def test_the_basis_stays_orthonormal():
    j = with_values(decay(300))
    found = singular.krylov(lambda u: u @ j, lambda v: v @ j.T, (300, 300), 6, 1e-8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(len(found.basis)).double())
    torch.testing.assert_close(found.basis @ j, found.image)


# -- Fisher ------------------------------------------------------------------------


@every_case
def test_fisher_is_that_of_the_logits(architecture, state):
    """Through the head, whatever it does: bias, soft-cap, folded norm."""
    model = shared(architecture, state)
    lin = tj.linearize(model, TEXT)
    to_logits = torch.autograd.functional.jacobian(lin.unembedding.logits, lin.y)
    fisher = to_logits.T @ (torch.diag(lin.probs) - torch.outer(lin.probs, lin.probs)) @ to_logits
    values = torch.linalg.eigvalsh(fisher).flip(0)
    s = fisher_spectrum(lin, k=6)
    torch.testing.assert_close(s.eigenvalues, values[:6].double(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        s.directions @ fisher, s.eigenvalues[:, None].to(fisher) * s.directions, atol=1e-6, rtol=0
    )
    assert s.trace == pytest.approx(values.sum().item(), rel=1e-5)
    assert s.effective_rank == pytest.approx((values.sum() ** 2 / values.square().sum()).item(), rel=1e-4)
    assert s.effective_rank_stderr == 0
    assert s.explained == pytest.approx((values[:6].sum() / values.sum()).item(), rel=1e-4)


def zipf(d_model: int, d_vocab: int = 900) -> Linearization:
    weight = (torch.arange(1, d_model + 1) ** -0.5)[:, None] * randn(d_model, d_vocab, seed=1)
    return linear(torch.eye(d_model, dtype=torch.float64), weight=0.3 * weight)


def test_a_large_fisher_matrix_is_estimated_within_its_errors(monkeypatch):
    lin = zipf(320)
    found = [fisher_spectrum(lin, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(40)]
    monkeypatch.setattr(module, "_DENSE_FISHER", 320)
    true = fisher_spectrum(lin, 5)
    assert true.effective_rank_stderr == 0
    assert ((found[0].eigenvalues - true.eigenvalues).abs() <= found[0].bound + 1e-12).all()
    assert found[0].trace == pytest.approx(true.trace)
    errors = torch.tensor([(s.effective_rank - true.effective_rank) / s.effective_rank_stderr for s in found])
    assert abs(errors.mean()) < 0.55
    assert 0.6 < errors.std() < 1.5


@pytest.mark.parametrize("d_model", [20, 300])
def test_a_certain_prediction_has_no_spectrum(d_model):
    weight = torch.zeros(d_model, 50, dtype=torch.float64)
    lin = linear(torch.eye(d_model, dtype=torch.float64), weight=weight)
    s = fisher_spectrum(lin, 3)
    assert s.eigenvalues.tolist() == [0, 0, 0]
    assert (s.trace, s.effective_rank, s.effective_rank_stderr, s.explained) == (0, 0, 0, 0)
    assert s.moves(0) == ((), ())


# -- the tokens that move ----------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "state"),
    cases(of=("gemma2", "phi", "gpt2")),
)
@pytest.mark.parametrize("by", ["probability", "log_probability"])
def test_moves_are_the_finite_differences(architecture, state, by):
    """Soft-cap, bias, folded and centred: d log p of every token along the direction."""
    lin = tj.linearize(shared(architecture, state), TEXT)
    s = fisher_spectrum(lin, k=3)
    step = 1e-4
    for i in range(3):
        ahead, behind = (lin.unembedding.logits(lin.y + e * s.directions[i]).log_softmax(-1) for e in (step, -step))
        log_change = (ahead - behind).double() / (2 * step)
        change = lin.probs * log_change if by == "probability" else log_change
        order = change.argsort(descending=True)
        rises, falls = s.moves(i, 6, by=by)
        assert [m.token for m in rises] == order[:6].tolist()
        assert [m.token for m in falls] == order.flip(0)[:6].tolist()
        for m in (*rises, *falls):
            assert m.log_change == pytest.approx(log_change[m.token].item(), rel=1e-4, abs=1e-6)
            assert m.probability == pytest.approx(lin.probs[m.token].item())
            assert m.change == pytest.approx((lin.probs * log_change)[m.token].item(), rel=1e-4, abs=1e-8)
            assert m.text == lin.decode(m.token)
        largest = int((lin.probs * log_change).abs().argmax())
        assert s.moves(i, 1).rises[0].token == largest  # which turns the direction


def test_a_step_of_the_embedding_moves_the_tokens_that_the_spectrum_names():
    """The real model, its embedding nudged along v: log p changes by s times what u does."""
    model = shared("llama", "bridge")
    lin = tj.linearize(model, TEXT)
    s, tokens, step = jacobian_spectrum(lin, -1, k=2), lin.tokens.tolist(), 1e-3
    nudge = torch.zeros(len(tokens), 32, dtype=torch.float64)
    nudge[-1] = step * s.right[0]
    up, down = (naive.run(model, tokens, sign * nudge).logits[-1].log_softmax(-1) for sign in (1, -1))
    measured = ((up - down) / (2 * step)).detach()
    for move in s.moves(0, 5, by="log_probability").rises:
        assert measured[move.token].item() == pytest.approx(s.singular_values[0].item() * move.log_change, rel=2e-3)


def test_every_direction_can_be_pulled_back_to_the_input_tokens():
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    s = fisher_spectrum(lin, k=2)
    squares = [tj.direction_scope(lin, u).scores.double() ** 2 for u in s.directions]
    together = sum(value * one for value, one in zip(s.eigenvalues, squares, strict=True))
    low_rank = tj.fisher_scope(lin, method="low_rank", rank=2).scores.double()
    torch.testing.assert_close(together, low_rank, rtol=1e-4, atol=1e-6)
    j = jacobian_spectrum(lin, 3, k=1)
    assert tj.direction_scope(lin, j.left[0]).scores[3].item() == pytest.approx(j.singular_values[0].item(), rel=1e-5)


# -- as values ---------------------------------------------------------------------


NASTY = "</script><b>$x$\x1b[31m"


@pytest.fixture
def spectra() -> list[JacobianSpectrum | FisherSpectrum]:
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    object.__setattr__(lin, "decode", lambda token: NASTY)
    object.__setattr__(lin, "str_tokens", (NASTY,) * len(lin.tokens))
    return [jacobian_spectrum(lin, 2, k=3), fisher_spectrum(lin, k=3)]


def test_a_representation_of_one_line(spectra):
    assert [repr(s).partition("(")[0] for s in spectra] == ["JacobianSpectrum", "FisherSpectrum"]
    for s in spectra:
        assert "effective rank" in repr(s)
        assert "\n" not in repr(s)


def test_a_table_a_row_a_direction(spectra):
    jacobian, fisher = (s.to_dataframe() for s in spectra)
    assert list(jacobian) == ["singular_value", "bound", "share", "raises", "lowers"]
    assert next(iter(fisher)) == "eigenvalue"
    assert jacobian["raises"][0] == [NASTY] * 3
    assert fisher["share"].sum() == pytest.approx(spectra[1].explained)


def test_html_is_escaped_and_static(spectra):
    for s in spectra:
        html = s._repr_html_()
        assert "<script" not in html
        assert "</script" not in html
        assert "<b>$x$" not in html
        assert "\x1b" not in html
        assert html.count("<tr>") == 2 * 4, "the directions, and the numbers of the chart of their decay"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_shows_a_table_without_escape_sequences(spectra, encoding, capsys):
    for s in spectra:
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding=encoding)
        terminal(s.panels(n=2), console=Console(file=file, width=100))
        file.flush()
        text = raw.getvalue().decode(encoding)
        assert s.value_name in text
        assert "effective rank" in text
        assert "\x1b[31m" not in text
        s.show(2)
        assert "raises" in capsys.readouterr().out


def test_a_plot_with_the_effective_rank_marked(spectra):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    for s in spectra:
        ax = s.plot()
        assert ax.get_yscale() == "log"
        assert "effective rank" in ax.get_legend().get_texts()[0].get_text()
        decay, rank = ax.lines[0], ax.lines[-1]
        assert decay.get_xdata().tolist() == [0, 1, 2], "as moves() and show() count"
        assert decay.get_ydata().tolist() == s.values.tolist()
        low, high = ax.get_xlim()
        assert -1 < low < 0
        assert 2 < high < 3
        assert set(ax.get_xticks()) >= {0, 1, 2}
        assert all(tick == int(tick) for tick in ax.get_xticks())
        assert rank.get_xdata()[0] == pytest.approx(s.effective_rank - 0.5), "so many directions lie left of it"
        figure, own = pyplot.subplots()
        assert s.plot(own) is own
        figure.canvas.draw()
        pyplot.close("all")


def test_they_can_be_sent_to_another_process(spectra):
    for s in spectra:
        again = pickle.loads(pickle.dumps(s))
        assert torch.equal(again.values, s.values)
        assert again.moves(0) == s.moves(0)


# -- what is refused ---------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda lin: jacobian_spectrum(lin, 2), tj.errors.PromptError, "position=2 is outside .*, expected -2 to 1"),
        (lambda lin: jacobian_spectrum(lin, -3), tj.errors.PromptError, "position=-3 is outside"),
        (lambda lin: jacobian_spectrum(lin, "b"), tj.errors.PromptError, "position='b' is a str"),
        (
            lambda lin: jacobian_spectrum(lin, 1, 0),
            tj.errors.ArgumentError,
            "k=0, expected a number of direct",
        ),
        (lambda lin: jacobian_spectrum(lin, 1, 2.5), tj.errors.ArgumentError, r"k=2\.5 is a float, expected an int"),
        (lambda lin: jacobian_spectrum(lin, 1, 13), tj.errors.ArgumentError, "k=13, expected at most 12"),
        (lambda lin: jacobian_spectrum(lin, 1, rtol=0.0, k=1), tj.errors.ArgumentError, r"rtol=0\.0, expected"),
        (lambda lin: fisher_spectrum(lin, 13), tj.errors.ArgumentError, "k=13, expected at most d_model=12"),
        (
            lambda lin: fisher_spectrum(lin, -1),
            tj.errors.ArgumentError,
            "k=-1, expected a number of",
        ),
        (
            lambda lin: fisher_spectrum(None),
            tj.errors.ArgumentError,
            "got a NoneType, expected one position's linearization",
        ),
        (
            lambda lin: fisher_spectrum(lin, 2).moves(2),
            tj.errors.ArgumentError,
            "direction 2 is out of range, expected 0 to 1",
        ),
        (lambda lin: fisher_spectrum(lin, 2).moves(0, 21), tj.errors.ArgumentError, "n=21, expected 0 to 20"),
        (
            lambda lin: fisher_spectrum(lin, 2).moves(0, by="size"),
            tj.errors.ArgumentError,
            "by='size', expected one of",
        ),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(linear(randn(12, 12)))


@pytest.mark.usefixtures("unchecked")
def test_a_batch_is_refused_and_its_members_are_taken():
    batch = tj.linearize(shared("llama", "bridge"), [TEXT, "Rome"])
    with pytest.raises(
        tj.errors.ArgumentError, match=r"got a LinearizationBatch, expected one( position's)? linearization.*batch\[i\]"
    ):
        fisher_spectrum(batch)
    alone = tj.linearize(shared("llama", "bridge"), "Rome")
    ours, theirs = jacobian_spectrum(batch[1], 1, 3), jacobian_spectrum(alone, 1, 3)
    torch.testing.assert_close(ours.singular_values, theirs.singular_values, rtol=1e-5, atol=1e-6)


def test_a_stale_linearization_is_refused():
    model = make("gpt2", "bridge")
    lin = tj.linearize(model, TEXT)
    with torch.no_grad():
        model.W_U.mul_(2)
    for spectrum in (fisher_spectrum, lambda lin: jacobian_spectrum(lin, 1, 2)):
        with pytest.raises(tj.errors.ContractError, match=r"weights were changed after .*call linearize"):
            spectrum(lin)
