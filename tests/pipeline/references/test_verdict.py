"""What may be said of a winner beside its reference points."""

from typing import Any

import pytest

from pipeline.references import verdict
from pipeline.references.records import AgainstWinner, Reference, References

MANIFEST = {
    "architecture_id": "w",
    "classes": [str(n) for n in range(10)],
    "metrics": {"accuracy_test": 0.9, "test_images": 10_000},
}


def told(name: str, accuracy: float, ratio: float, reach: float = 0.02, **more: Any) -> Reference:
    """A finished reference; the winner of `MANIFEST` has 0.9."""
    against = AgainstWinner(
        winner="w",
        file_sha256="",
        latency_ratio=ratio,
        latency_ratio_low=ratio - reach,
        latency_ratio_high=ratio + reach,
        accuracy_validation_difference=0.0,
        accuracy_test_difference=accuracy - 0.9,
    )
    metrics = {"accuracy_test": accuracy, "accuracy_validation": accuracy, "latency_ms": ratio}
    return Reference(name=name, recipe="", status="ok", metrics=metrics, against_winner=against, **more)


def said(*references: Reference, manifest: dict[str, Any] = MANIFEST) -> str:
    return verdict.verdict(verdict.rows(References(references=references), manifest), manifest)


class TestVerdict:
    def test_the_winner_is_faster_than_the_fastest_that_is_as_accurate(self) -> None:
        text = said(told("slow", 0.95, 9.0), told("good", 0.9, 3.5), told("poor", 0.8, 2.0))
        assert text.startswith("At equal or better accuracy the winner is 3.50 times faster (3.48 to 3.52)")
        assert "good" in text
        assert "slow" not in text

    def test_a_reference_wins(self) -> None:
        text = said(told("good", 0.91, 0.5), told("other", 0.95, 3.0))
        assert text.startswith("A reference wins: good is at least as accurate (test accuracy 0.9100 against")
        assert "0.50 (0.48 to 0.52) times the winner's latency" in text

    def test_within_the_noise_nobody_wins(self) -> None:
        assert said(told("good", 0.91, 1.01)).startswith("The search gained nothing over good")

    def test_none_is_as_accurate(self) -> None:
        text = said(told("near", 0.89, 4.0), told("far", 0.5, 0.5))
        assert text.startswith("None of 2 references is as accurate as the winner (test accuracy 0.9000)")
        assert "near (0.8900), takes 4.00 (3.98 to 4.02) times the winner's latency" in text
        assert "Faster than the winner, but less accurate: far (0.50 (0.48 to 0.52) times" in text
        assert "0.4000 less" in text

    def test_none_is_as_accurate_and_the_best_is_faster(self) -> None:
        text = said(told("near", 0.89, 0.75), told("far", 0.5, 3.0))
        assert "near (0.8900), takes 0.75" in text
        assert text.count("near") == 1

    def test_the_only_one_is_less_accurate(self) -> None:
        text = said(told("near", 0.89, 0.75))
        assert text.startswith(
            "The only reference, near, is less accurate than the winner (test accuracy 0.8900 against 0.9000) and "
            "takes 0.75 (0.73 to 0.77) times the winner's latency. On 10,000"
        )

    @pytest.mark.parametrize(
        ("others", "begins"),
        [((), "The only reference, near, is"), (("far",), "Of 2 references the most accurate, near, is")],
    )
    def test_what_chance_may_do_is_not_called_a_difference(self, others: tuple[str, ...], begins: str) -> None:
        """0.895 against 0.9 on 10,000 images: nearer than 0.0083."""
        text = said(told("near", 0.895, 4.0), *(told(name, 0.5, 3.0) for name in others))
        assert text.startswith(begins)
        assert (
            "less accurate than the winner by no more than chance may do (test accuracy 0.8950 against 0.9000)" in text
        )
        assert "it takes 4.00 (3.98 to 4.02) times" in text
        assert "None of" not in text

    def test_faster_ones_are_parted_by_what_chance_may_do(self) -> None:
        text = said(told("equal", 0.9, 2.0), told("near", 0.895, 0.5), told("far", 0.5, 0.4))
        assert "Faster than the winner, but less accurate: far (0.40" in text
        assert "Faster than the winner, and less accurate by no more than chance may do: near (0.50" in text

    def test_chance_is_told(self) -> None:
        """Two shares of 0.9 over 10,000 images: 1.96 · √(2 · 0.9 · 0.1 / 10,000) = 0.0083."""
        assert "On 10,000 test images, accuracies less than 0.0083 apart" in said(told("good", 0.9, 2.0))

    def test_failures_and_an_empty_hand(self) -> None:
        failed = Reference(name="broken", recipe="", status="failed", error="no")
        assert said(failed) == "No reference point was finished and timed against the winner. Failed: broken."

    def test_a_comparison_with_another_winner_counts_for_nothing(self) -> None:
        assert "No reference point" in said(told("good", 0.95, 2.0), manifest={**MANIFEST, "architecture_id": "x"})

    def test_chance_level_is_remarked(self) -> None:
        (row,) = verdict.rows(References(references=(told("dead", 0.1, 2.0, broken_limits="macs 2 > 1"),)), MANIFEST)
        assert row["remark"] == "learned nothing with this recipe; breaks macs 2 > 1"
        (row,) = verdict.rows(References(references=(told("alive", 0.5, 2.0),)), MANIFEST)
        assert row["remark"] == ""
