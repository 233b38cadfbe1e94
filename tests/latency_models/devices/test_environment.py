from dataclasses import replace

from latency_models import timer
from latency_models.devices.device import Device
from latency_models.devices.environment import environment_of


def test_another_machine_and_other_settings_are_another_environment() -> None:
    facts, device = timer.facts(), Device()
    here = environment_of(facts, device).fingerprint
    others = [
        environment_of({**facts, "cpu_model": "another"}, device),
        environment_of({**facts, "cpu_flags_digest": "another"}, device),
        environment_of({**facts, "l2_cache_bytes": 1}, device),
        environment_of({**facts, "onnxruntime": "0.1"}, device),
        environment_of(facts, replace(device, provider_options=(("a", "b"),))),
        environment_of(facts, replace(device, threads=2)),
        environment_of(facts, replace(device, precision="int8")),
    ]
    assert len({here, *(other.fingerprint for other in others)}) == 1 + len(others)
    same = [
        environment_of({**facts, "load": 99.0, "python": "3.9"}, device),
        environment_of(facts, replace(device, batch_size=8, name="another", host="far.example")),
    ]
    assert {each.fingerprint for each in same} == {here} == {same[0].as_dict()["fingerprint"]}
    assert same[0].load_at_start == 99.0


def test_gpus_count_where_they_are_used() -> None:
    facts = {**timer.facts(), "gpus": ["One", "Two"]}
    assert environment_of(facts, Device()).gpu is None
    cuda = Device(provider="CUDAExecutionProvider")
    assert environment_of(facts, cuda).gpu == "One"
    assert environment_of(facts, replace(cuda, provider_options=(("device_id", "1"),))).gpu == "Two"
    assert environment_of({**facts, "gpus": []}, cuda).gpu is None
