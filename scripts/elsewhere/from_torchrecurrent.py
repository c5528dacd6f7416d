"""What torchrecurrent's layers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchrecurrent
from record import Array, Arrays, Call, half, record, torch_call, torch_rows, torch_side

More = Callable[[Arrays], Arrays]


def layer(
    kind: str,
    ih: str = "",
    hh: str = "",
    split: str = "",
    *,
    states: str = "h",
    out: str = "h",
    sizes: tuple[int, int] = (2, 3),
    more: More | None = None,
    **options: Any,
) -> Call:
    """A layer whose weight_ih has the rows of the parameters in `ih`, weight_hh those in `hh`.

    `split` are split between bias_ih and bias_hh. `more` gives other weights, and replaces these.
    A state that is two in the library is named twice in `states`.
    """
    module = getattr(torchrecurrent, kind)(*sizes, dtype=torch.float64, **options)

    def call(v: Arrays) -> tuple[Arrays, Arrays]:
        weights = {"weight_ih": torch_rows(v, ih)} if ih else {}
        weights |= {"weight_hh": torch_rows(v, hh)} if hh else {}
        if split:
            weights["bias_ih"], weights["bias_hh"] = half(torch_rows(v, split))
        weights |= more(v) if more else {}
        start = tuple(v[name][None] for name in states.split())
        series, last = torch_call(
            module,
            {f"cells.0.{name}": a for name, a in weights.items()},
            v["x"],
            start if start[1:] else start[0],
        )
        last = last if start[1:] else (last,)
        return {out: series}, {n: a[0] for n, a in zip(states.split(), last, strict=True)}

    return call


def rows(**which: str) -> More:
    """Weights that are rows of our parameters."""
    return lambda v: {name: torch_rows(v, these) for name, these in which.items()}


def unlike(ih: str, hh: str) -> More:
    """Biases where some gates have one and some two: their names for each side."""

    def more(v: Arrays) -> Arrays:
        both = set(ih.split()) & set(hh.split())

        def part(names: str, k: int) -> Array:
            return torch.cat([half(v[n])[k] if n in both else v[n] for n in names.split()])

        return {"bias_ih": part(ih, 0), "bias_hh": part(hh, 1)}

    return more


def both(*each: More) -> More:
    return lambda v: {k: a for more in each for k, a in more(v).items()}


def t_rnn(v: Arrays) -> Arrays:
    return {"bias_ih": torch.cat([torch.zeros_like(v["b"]), v["b"]])}


def oscillators(v: Arrays) -> Arrays:
    """Three biases for one."""
    b = v["b"]
    return {"weight_ch": v["U"], "bias_ih": 0.5 * b, "bias_hh": 0.25 * b, "bias_ch": 0.25 * b}


def fastrnn(v: Arrays) -> Arrays:
    return {"alpha": v["a"][None], "beta": v["c"][None]}


def fastgrnn(v: Arrays) -> Arrays:
    return {"zeta": v["a"][None], "nu": v["c"][None]}


def janet(v: Arrays) -> Arrays:
    return {"beta": v["β"]}


def mut1(v: Arrays) -> Arrays:
    """The identity in the place of the input's third matrix."""
    nothing = torch.zeros_like(v["b_z"])
    r, h = half(v["b_r"]), v["b_h"]
    return {
        "weight_ih": torch.cat([v["W_xz"], v["W_xr"], torch.eye(3, dtype=torch.float64)]),
        "bias_ih": torch.cat([v["b_z"], r[0], nothing]),
        "bias_hh": torch.cat([r[1], h]),
    }


def mut2(v: Arrays) -> Arrays:
    """The identity in the place of the input's second matrix."""
    return {"weight_ih": torch.cat([v["W_xz"], torch.eye(3, dtype=torch.float64), v["W_xh"]])}


def say(cell: str, kind: str, call: Call, instead: str = "", **options: Any) -> None:
    claim = f"torchrecurrent.{kind}{instead}"
    record(cell, "torchrecurrent", claim, call, side=torch_side, **options)


def main() -> None:
    none = {"bias": False, "recurrent_bias": False}
    without = " without biases"
    say("atr", "ATR", layer("ATR", "W", "U", **none), without)
    euler = {"epsilon": 0.1, "gamma": 0.01}
    steps = "(epsilon=ε, gamma=γ)"
    plain = layer("AntisymmetricRNN", "V", "W", "b", **euler)
    say("antisymmetric", "AntisymmetricRNN", plain, steps)
    gated = layer("GatedAntisymmetricRNN", "V_z V_h", "W", more=unlike("b_z b_h", "b_h"), **euler)
    say("antisymmetric_gated", "GatedAntisymmetricRNN", gated, steps)
    own = rows(bias_hh="b_a b_c")
    brc = layer("BR", "U_a U_c U", "w_a w_c", more=own, bias=False)
    say("brc", "BR", brc, "(bias=False)")
    nbrc = layer("NBR", "U_a U_c U", "W_a W_c", more=own, bias=False)
    say("nbrc", "NBR", nbrc, "(bias=False)")
    own = rows(bias_hh="b_θ b_η")
    cfn = layer("CFN", "V_θ V_η W", "U_θ U_η", more=own, bias=False)
    say("cfn", "CFN", cfn, "(bias=False)")
    damped = {"dt": 0.042, "gamma": 2.7, "epsilon": 4.7}
    cornn = layer("coRNN", "V", "W", states="y z", out="y", more=oscillators, **damped)
    say("cornn", "coRNN", cornn, "(dt=dt, gamma=γ, epsilon=ε)")
    say("fastrnn", "FastRNN", layer("FastRNN", "W", "U", "b", more=fastrnn))
    call = layer("FastGRNN", "W", "U", "b_z b_h", more=fastgrnn, nonlinearity="sigmoid")
    say("fastgrnn", "FastGRNN", call, '(nonlinearity="sigmoid")')
    indrnn = layer("IndRNN", "W", split="b", more=rows(vector_u="u"), nonlinearity="relu")
    say("indrnn", "IndRNN", indrnn, '(nonlinearity="relu")')
    wide = "W_yx W_hx W_gyx W_ghx", "W_yh W_hh W_gyh W_ghh", "b_y b_h b_gy b_gh"
    intersection = layer("IntersectionRNN", *wide, out="y", sizes=(3, 3))
    say("intersection_rnn", "IntersectionRNN", intersection)
    two = layer("JANET", "W_f W_h", "U_f U_h", "b_f b_h", states="h h", more=janet)
    say("janet", "JANET", two)
    lightru = layer("LightRU", "W_h W_f", "U_f", more=unlike("b_h b_f", "b_f"))
    say("lightru", "LightRU", lightru)
    say("ligru", "LiGRU", layer("LiGRU", "W_z W_h", "U_z U_h", "b_z b_h"))
    original = layer("OriginalLSTM", "W_i W_g W_o", "U_i U_g U_o", "b_i b_g b_o", states="h c")
    say("lstm_original", "OriginalLSTM", original)
    say("mgu", "MGU", layer("MGU", "W_f W_h", "U_f U_h", "b_f b_h"))
    # gates that see less: some rows are 0
    seeing = (("U_f U_h", "b_f b_h"), ("U_f U_h", "0 b_h"), ("0 U_h", "b_f b_h"))
    for k, (hh, b) in enumerate(seeing, 1):
        say(f"mgu{k}", "MGU", layer("MGU", "0 W_h", hh, b), ", what its gate does not see 0")
    own = rows(weight_mm="U_z", bias_ih="b_z", bias_hh="b_u")
    say("minimal_rnn", "MinimalRNN", layer("MinimalRNN", "W_x", "U_h", more=own))
    own = rows(weight_mh="W_im W_fm W_hm W_om")
    given = "W_mx W_ix W_fx W_hx W_ox", "W_mh"
    none["multiplicative_bias"] = False
    mlstm = layer("MultiplicativeLSTM", *given, states="h c", more=own, **none)
    say("mlstm", "MultiplicativeLSTM", mlstm, without)
    call = layer("MUT1", hh="W_hr W_hh", sizes=(3, 3), more=mut1)
    say("mut1", "MUT1", call, ", an identity as its third input matrix")
    call = layer("MUT2", hh="W_hz W_hr W_hh", split="b_z b_r b_h", sizes=(3, 3), more=mut2)
    say("mut2", "MUT2", call, ", an identity as its second input matrix")
    mut3 = layer("MUT3", "W_xz W_xr W_xh", "W_hz W_hr W_hh", "b_z b_r b_h")
    say("mut3", "MUT3", mut3)
    gates = "W_i W_f W_g W_o", "U_i U_f U_g U_o", "b_i b_f b_g b_o"
    own = rows(weight_ph="p_i p_f p_o")
    say("peephole", "PeepholeLSTM", layer("PeepholeLSTM", *gates, states="h c", more=own))
    gates = "W_i W_f W_z W_o", "R_i R_f R_z R_o", "b_i b_f b_z b_o"
    vanilla = layer("PeepholeLSTM", *gates, states="y c", out="y", more=own)
    say("greff_vanilla", "PeepholeLSTM", vanilla)
    # a gate that is not there: a bias of 100 holds it at 1
    for gate, cell in (("i", "greff_nig"), ("f", "greff_nfg"), ("o", "greff_nog")):

        def held(names: str, at: str, gate: str = gate) -> str:
            return " ".join(at if name.endswith(gate) else name for name in names.split())

        w, r, b = held(gates[0], "0"), held(gates[1], "0"), held(gates[2], "100")
        own = rows(weight_ph=held("p_i p_f p_o", "0"))
        call = layer("PeepholeLSTM", w, r, b, states="y c", out="y", more=own)
        say(cell, "PeepholeLSTM", call, f", {gate} held at 1")
    ran = layer("RAN", "W_cx W_ix W_fx", "W_ih W_fh", "b_i b_f", states="h c")
    say("ran", "RAN", ran)
    own = rows(weight_ph="w_ci w_cf w_co", weight_proj="W_p", weight_res="W_h")
    gates = "W_xi W_xf W_xc W_xo", "W_hi W_hf W_hc W_ho", "b_i b_f b_c b_o"
    say("residual_lstm", "ResLSTM", layer("ResLSTM", *gates, states="h c", more=own))
    say("star", "STAR", layer("STAR", "W_z W_x", "W_h", more=unlike("b_z b_k", "b_k")))
    typed = "W_z W_f W_o", "V_z V_f V_o", "b_z b_f b_o"
    say("t_gru", "TGRU", layer("TGRU", *typed, states="h last$x"))
    say("t_lstm", "TLSTM", layer("TLSTM", *typed, states="c last$x"))
    say("t_rnn", "TRNN", layer("TRNN", "W V", more=t_rnn), ", its first bias 0")
    delayed = "U_1 U_2 U_3 U_4", "W_1 W_2 W_3 W_4"
    call = layer("tauGRU", *delayed, bias=False, recurrent_bias=False)
    say("tau_gru", "tauGRU", call, without, fixed={"p": 0.0})
    own = rows(weight_ch="c")
    call = layer("UnICORNN", "V", "w", "b", states="y z", out="y", more=own, dt=0.1, alpha=1.0)
    say("unicornn", "UnICORNN", call, "(dt=dt, alpha=α)")
    say("ugrnn", "UGRNN", layer("UGRNN", "W_cx W_gx", "W_ch W_gh", "b_c b_g"))
    gates = "W_ix W_fx W_gx W_ox", "W_ih W_fh W_gh W_oh", "b_i b_f b_g b_o"
    own = rows(weight_mh="W_ic W_fc W_oc")
    wmc = layer("WMCLSTM", *gates, states="h c", more=own, memory_bias=False)
    say("wmc_lstm", "WMCLSTM", wmc, "(memory_bias=False)")


if __name__ == "__main__":
    main()
