import math

from unlora.report import plots
from unlora.report.plots import training_charts


def line(step: int, loss: float, retain: float = 0.1) -> dict[str, float]:
    return {"step": step, "loss": loss, "forget_term": loss, "retain_term": retain}


def test_ends_of_a_curve_lie_at_the_ends_of_the_axes():
    chart = training_charts([line(1, 0.0), line(6, 1.0), line(11, 2.0)], has_retain_term=False)[0]
    (points,) = chart.curves[0].pieces
    middle = (plots.LEFT + plots.RIGHT) / 2, (plots.TOP + plots.BOTTOM) / 2
    assert [tuple(map(float, point.split(","))) for point in points.split()] == [
        (plots.LEFT, plots.BOTTOM),
        middle,
        (plots.RIGHT, plots.TOP),
    ]


def test_ticks_are_round_and_inside():
    chart = training_charts([line(step, 0.37 * step) for step in range(1, 26)], has_retain_term=False)[0]
    assert [tick.label for tick in chart.x_ticks] == ["5", "10", "15", "20", "25"]
    assert [tick.label for tick in chart.y_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert all(plots.TOP <= tick.position <= plots.BOTTOM for tick in chart.y_ticks)


def test_retain_term_has_its_own_axis():
    log = [line(1, 1000.0, retain=0.01), line(2, 900.0, retain=0.02)]
    assert [chart.title for chart in training_charts(log, has_retain_term=True)] == [
        "Loss and forget term",
        "Retain term",
    ]
    assert float(training_charts(log, has_retain_term=True)[1].y_ticks[-1].label) == 0.02


def test_values_that_are_no_numbers_break_the_curve():
    log = [line(1, 1.0), line(2, 2.0), line(3, math.nan), line(4, math.inf), line(5, 1.0)]
    curve = training_charts(log, has_retain_term=False)[0].curves[0]
    assert [len(piece.split()) for piece in curve.pieces] == [2]
    assert len(curve.lone_points) == 1


def test_single_step_is_a_point():
    curve = training_charts([line(1, 0.0)], has_retain_term=False)[0].curves[0]
    assert curve.pieces == ()
    assert curve.lone_points == (((plots.LEFT + plots.RIGHT) / 2, (plots.TOP + plots.BOTTOM) / 2),)


def test_zero_is_marked_only_inside():
    assert training_charts([line(1, -1.0), line(2, 1.0)], has_retain_term=False)[0].zero is not None
    assert training_charts([line(1, 1.0), line(2, 2.0)], has_retain_term=False)[0].zero is None


def test_nothing_to_draw_gives_no_chart():
    assert training_charts([], has_retain_term=True) == []
    assert training_charts([line(1, math.nan, retain=math.nan)], has_retain_term=True) == []
