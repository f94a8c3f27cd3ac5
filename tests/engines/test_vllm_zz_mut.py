import importlib.util, sys
from pathlib import Path
import pytest, asyncio
def load(name):
    spec=importlib.util.spec_from_file_location(name+"_m", "/work/main/tests/engines/"+name+".py"); m=importlib.util.module_from_spec(spec); sys.modules[name+"_m"]=m; spec.loader.exec_module(m); return m
R=load("test_vllm_resume"); V=load("test_vllm")
import mesh.engines.vllm_resume as res, mesh.engines.vllm_attempt as att, mesh.engines.vllm_params as par, mesh.engines.vllm as eng
pytestmark=[pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(200)]
async def fails(coro):
    try: await asyncio.wait_for(coro, 60)
    except BaseException as e:
        print("FAILS as it should:", type(e).__name__, str(e)[:100].replace("\n"," ")); return
    raise RuntimeError("MUTANT SURVIVED")
async def test_m1_whole(vllm_engine, monkeypatch):
    monkeypatch.setattr(res.Decoder,"is_whole",lambda *a,**k: True)
    await fails(R.test_whole_characters_of_several_tokens_go_on(vllm_engine))
@pytest.mark.parametrize("p",[1.0,1.05,1.2,1.9])
async def test_m1b(vllm_engine, monkeypatch,p):
    monkeypatch.setattr(res.Decoder,"is_whole",lambda *a,**k: True)
    await fails(R.test_characters_of_several_tokens_are_never_torn(vllm_engine,p))
async def test_m2_stop(vllm_engine, monkeypatch):
    monkeypatch.setattr(att,"stop_strings",lambda r: ())
    await fails(R.test_a_stop_string_across_the_cut_is_found(vllm_engine,False))
async def test_m3_min(vllm_engine, monkeypatch):
    monkeypatch.setattr(res,"is_continuable",lambda r: True)
    await fails(R.test_what_would_not_be_exact_starts_again(vllm_engine,{"temperature":0.5}))
async def test_m4_seed(vllm_engine, monkeypatch):
    monkeypatch.setattr(par,"_SEED_INSTEAD_OF_MINUS_ONE",-1)
    await fails(V.test_one_seed_draws_one_answer_and_another_seed_another(vllm_engine))
async def test_m5_finish(vllm_engine, monkeypatch):
    monkeypatch.setattr(att,"finish_of",lambda *a: None)
    await fails(R.test_an_answer_that_was_whole_already_needs_no_engine(vllm_engine))
async def test_m6_penalty(vllm_engine, monkeypatch):
    monkeypatch.setattr(res,"is_continuable",lambda r: True)
    kept=[]
    for f in ({"presence_penalty":1.5},{"temperature":0.9},{"structured_outputs":R.StructuredOutputs(json_object=True)}):
        try: await R.check_every_cut(vllm_engine,R.ask(**f)); kept.append(f)
        except BaseException as e: print("inexact indeed", f)
    print("exact by luck:",kept)
async def test_m7_mintokens(vllm_engine, monkeypatch):
    orig=par.sampling_arguments
    monkeypatch.setattr(eng,"sampling_arguments",lambda r,s,n_before=0: orig(r,s,n_before=0)|{"max_tokens":par.max_tokens(r)-n_before})
    await fails(R.test_what_greedy_allows_is_kept_in_the_continuation(vllm_engine,{"min_tokens":20}))
async def test_m8_types(vllm_engine, monkeypatch):
    monkeypatch.setattr(par,"check_limits",lambda *a,**k:None)
async def test_m9_abandon(vllm_engine, monkeypatch):
    async def nothing(self,stream,job): pass
    monkeypatch.setattr(eng.VllmEngine,"_abandon",nothing)
    await fails(V.test_a_closed_generator_frees_its_slot(vllm_engine))
    await asyncio.sleep(3)
async def test_m10_earlycancel(vllm_engine, monkeypatch):
    async def nothing(self,ids): pass
    monkeypatch.setattr(eng.VllmEngine,"_abort",nothing)
    await fails(V.test_a_call_cancelled_before_its_first_token_frees_its_slot(vllm_engine))
