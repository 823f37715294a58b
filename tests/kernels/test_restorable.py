"""What is said to be saved comes back, as the same object where code can tell; the rest is named at commit."""

# ruff: noqa: E501 - a table of cells

import sys

import pytest

from helpers.replays import check_replayed, played_twice

# Durable cells, and an expression that is true after them, also after a replay.
KEPT = {
    # Instances of subclasses of built-in types.
    "an order with a limit, a default with a tag": (
        [
            "from collections import OrderedDict,Counter,defaultdict\nclass LRU(OrderedDict):\n    def __init__(s,size): super().__init__();s.size=size\nc=LRU(2);c['a']=1\nclass DD(defaultdict):\n    def __init__(s,tag): super().__init__(list);s.tag=tag\nd=DD('t');d['x'].append(1)",
            "c['b']=2;d['y'].append(2)",
        ],
        "list(c)==['a','b'] and c.size==2 and d.tag=='t' and d['y']==[2] and d['q']==[]",
    ),
    "a dict with other items": (
        [
            "class D(dict):\n    def items(s): return [(k.upper(),v) for k,v in dict.items(s)]\n    def __iter__(s): return iter([])\nd=D(a=1)\nd.note=2"
        ],
        "dict.__len__(d)==1 and dict.get(d,'a')==1 and d.note==2 and d.items()==[('A',1)]",
    ),
    "numbers and text with a constructor of their own": (
        [
            "class Meters(float):\n    def __new__(cls,v,unit): o=super().__new__(cls,v);o.unit=unit;return o\nclass Name(str):\n    def __new__(cls,a,b): return super().__new__(cls,a+b)\nfrom collections import namedtuple\nclass P(namedtuple('P','x y')):\n    def __new__(cls,x): return super().__new__(cls,x,2*x)\nm=Meters(2.5,'m');n=Name('a','b');p=P(4)\nclass I(int):\n    def __new__(cls,*,v): return super().__new__(cls,v)\ni=I(v=7)"
        ],
        "m==2.5 and m.unit=='m' and n=='ab' and type(n) is Name and p==(4,8) and p.y==8 and type(p) is P and i==7 and type(i) is I",
    ),
    "lists, sets, queues and counters with a name": (
        [
            "class L(list):\n    def __init__(s,name): s.name=name\n    def append(s,x): list.append(s,x);s.log=x\nl=L('n');l.append(3)\nclass T(set):\n    def __init__(s,name): super().__init__();s.name=name\nt=T('t');t.add(1)\nfrom collections import deque,Counter\nclass Q(deque):\n    def __init__(s,name): super().__init__(maxlen=2);s.name=name\nq=Q('q');q.append(1);q.append(2);q.append(3)\nclass C(Counter):\n    def __init__(s,name,*a): super().__init__(*a);s.name=name\nc=C('c','aab')"
        ],
        "l==[3] and l.name=='n' and l.log==3 and t=={1} and t.name=='t' and list(q)==[2,3] and q.maxlen==2 and q.name=='q' and c['a']==2 and c.name=='c'",
    ),
    "a dict that holds itself": (
        ["class D(dict):\n    def __init__(s,x): s.x=x\nd=D(1);d['me']=d;d['l']=[d]", "d['l'].append(1)"],
        "d['me'] is d and d['l'][0] is d and d.x==1 and d['l'][1]==1",
    ),
    "a dict that changes what is set": (
        [
            "class D(dict):\n    def __init__(s,x): s.x=x\n    def __setitem__(s,k,v): super().__setitem__(k,(s.x,v))\nd=D(1);d['a']=2"
        ],
        "dict(d)=={'a':(1,2)} and d.x==1",
    ),
    "a dict whose items are its attributes": (
        [
            "class AD(dict):\n    def __init__(s,*a,**k): super().__init__(*a,**k);s.__dict__=s\nc=AD(x=1)",
            "c.y=2",
        ],
        "c['y']==2 and c.x==1 and c.__dict__ is c",
    ),
    # Types that pickle looks up by name.
    "a new type": (
        ["from typing import NewType\nUid=NewType('Uid',int)\nu=Uid(3)"],
        "Uid(4)==4 and u==3 and Uid.__supertype__ is int and Uid.__module__=='__main__' and repr(Uid)=='__main__.Uid'",
    ),
    "a new type of an own class": (
        [
            "from typing import NewType\nclass A: pass\nAA=NewType('AA',A)\ndef f(x: AA)->AA: return x\nd={'t':AA}"
        ],
        "AA.__supertype__ is A and f.__annotations__['x'] is AA and d['t'] is AA",
    ),
    "a new type in a later cell": (
        [
            "from typing import NewType\nA=NewType('A',int)",
            "B=NewType('B',A)\nimport dataclasses\n@dataclasses.dataclass\nclass R:\n    x: B\nr=R(B(1))",
        ],
        "B.__supertype__ is A and R.__annotations__['x'] is B and r.x==1",
    ),
    # What loading calls.
    "a state that needs a module and a constant": (
        [
            'class A:\n    def __init__(s): s.v=1\n    def __getstate__(s): return {"v":s.v}\n    def __setstate__(s,d): s.v=math.floor(d["v"]*SCALE+0.5)\nimport math\nSCALE=1.0\na=A();shared=[a]'
        ],
        "a.v==1 and shared[0] is a",
    ),
    "a reduction that calls a later function": (
        [
            "class A:\n    def __init__(s,v): s.v=v\n    def __reduce__(s): return make,(s.v,)\ndef make(v): return A(conv(v))\nconv=int\nl=[1]\na=A(3);b=[l,a]"
        ],
        "a.v==3 and b[0] is l",
    ),
    "a hash that calls a later function": (
        [
            "class K:\n    def __init__(s,v): s.v=v\n    def __hash__(s): return h(s.v)\n    def __eq__(s,o): return s.v==o.v\ndef h(v): return hash(v)\nd={K(1):2}\ns={K(3)}"
        ],
        "d[K(1)]==2 and K(3) in s",
    ),
    # Floats that are not a number.
    "a key": (["import numpy as np\nd={np.nan:'miss',1:'x'}", "v=d[np.nan]"], "d[np.nan]=='miss'"),
    "a mapping of a column": (
        [
            "import pandas as pd,numpy as np\nm=pd.Series([1,np.nan,np.nan]).map({np.nan:'a',1.0:'b'});mp={np.nan:'a',1.0:'b'}"
        ],
        "pd.Series([1,np.nan]).map(mp).tolist()==['b','a'] and np.nan in mp",
    ),
    "the one of math": (
        ["import math\nfrom math import nan\ns={nan,1.0}\nl=[math.nan]"],
        "nan in s and l[0] is math.nan and l.index(nan)==0",
    ),
    "one of the user in a later cell": (
        ["missing=float('nan')", "d={missing:1};t=(missing,)", "u=[missing]"],
        "d[missing]==1 and t[0] is missing and u[0] is missing",
    ),
    "several of the user": (
        ["d={};missing=float('nan');d[missing]=1\nother=float('nan');e=[other,other,float('nan')]"],
        "d[missing]==1 and e[0] is e[1] is other and e[2] is not other",
    ),
    "a frame of objects": (
        [
            "import pandas as pd, numpy as np\ndf=pd.DataFrame({'a':['x',np.nan]},dtype=object);c=df.a.value_counts(dropna=False).to_dict()"
        ],
        "df.a[1] is np.nan and c[np.nan]==1",
    ),
    "in instances, tuples and defaults": (
        ["import numpy as np\nclass A: pass\na=A();a.x=np.nan;a.t={(1,np.nan):2}\nf=lambda x=np.nan: x"],
        "a.x is np.nan and a.t[(1,np.nan)]==2 and f() is np.nan",
    ),
    # A dict of attributes.
    "of two objects": (
        ["class A: pass\na=A();b=A();b.__dict__=a.__dict__;a.x=1", "b.y=2"],
        "a.y==2 and b.x==1 and a.__dict__ is b.__dict__",
    ),
    "under another name": (
        ["class A: pass\na=A();a.x=1;d=vars(a)", "d['y']=5"],
        "a.y==5 and d is a.__dict__",
    ),
    "of all instances of a class": (
        [
            "class Borg:\n    state={}\n    def __init__(s): s.__dict__=Borg.state\nx=Borg();x.n=1",
            "y=Borg();y.m=2",
        ],
        "x.m==2 and y.n==1 and Borg.state is x.__dict__ and Borg().n==1",
    ),
    "under another name, later": (
        ["class A: pass\na=A();a.x=1", "d=a.__dict__", "d['z']=3"],
        "a.z==3 and d is vars(a)",
    ),
    "in a list": (["class A: pass\nl=[A()];l.append(vars(l[0]))", "l[1]['k']=1"], "l[0].k==1"),
    "in itself": (
        ["class A:\n    def __init__(s): s.me=vars(s)\na=A()", "a.me['q']=4"],
        "a.q==4 and a.me is vars(a)",
    ),
    "of a simple namespace": (
        ["import types\nns=types.SimpleNamespace(a=1)\nd=vars(ns)", "d['y']=2"],
        "ns.y==2 and vars(ns) is d",
    ),
    "of a simple namespace, later": (
        [
            "import types\nclass N(types.SimpleNamespace): pass\nl=[N(a=1),{}]",
            "l[1]['d']=d=vars(l[0])",
            "d['y']=2",
        ],
        "l[0].y==2 and vars(l[0]) is d is l[1]['d']",
    ),
    "of an exception and of a dict with attributes": (
        [
            "class D(dict): pass\ne=ValueError('x');e.a=1;p=D(k=1);p.a=1\nd=[vars(e),vars(p)]",
            "for each in d: each['y']=2",
        ],
        "e.y==p.y==2 and vars(e) is d[0] and vars(p) is d[1] and p=={'k':1}",
    ),
    "of what says itself how it is pickled": (
        [
            "class A:\n    def __getstate__(s): return dict(vars(s))\ndef make(d):\n    b=B();vars(b).update(d);return b\nclass B:\n    def __reduce__(s): return make,(vars(s),)\nd=[]\na=A();b=B();a.x=b.x=1;d+=[vars(a),vars(b)]",
            "for each in d: each['y']=2",
        ],
        "a.y==b.y==2 and vars(a) is d[0] and vars(b) is d[1] and a.x==b.x==1",
    ),
    "of what has slots too": (
        ["class S: __slots__=('q',)\nclass A(S): pass\na=A();a.q=[3];a.x=1;d=vars(a)", "d['y']=2"],
        "a.y==2 and vars(a) is d and a.q==[3] and 'q' not in d",
    ),
    # Immutable values that code compares with `is`.
    "a text of an earlier name": (
        ["S=''.join(['my',' ','text'])", "l=[S,1];d={'k':S};t=(S,2);f=lambda x=S: x is S"],
        "l[0] is S and d['k'] is S and t[0] is S and f()",
    ),
    "a text with several names": (
        ["A=' '.join('ab');B=A;C=[A];D=' '.join('ab');b=bytes([1,2]);c={'b':b}", "E=[B];e=(b,)"],
        "A is B is C[0] is E[0] and D is not A and c['b'] is b is e[0]",
    ),
    "a text of an ordinary cell": (
        [
            "# ordinary\nMISSING='not there'",
            "class R: pass\nr=R();r.x=MISSING;rows=[[MISSING,2]]",
            "[MISSING]",
        ],
        "r.x is MISSING and rows[0][0] is MISSING and _[0] is MISSING",
    ),
    "a text that an ordinary cell binds anew": (
        ["# ordinary\nimport time\nS=f't{time.time_ns()}'", "l=[S]", "# ordinary\nS='t0'"],
        "l[0] != S and l[0][0]=='t'",
    ),
    "integers of an earlier name": (
        [
            "M=-999; N=10**30",
            "l=[M,{'k':M}];t=(N,);alias=M",
        ],
        "l[0] is M and l[1]['k'] is M and t[0] is N and alias is M",
    ),
    "floats of an earlier name": (
        ["F=1.5;G=float('inf')", "l=[F];d={F:1};s={G};f=lambda x=F: x is F"],
        "l[0] is F and [*d][0] is F and [*s][0] is G and f()",
    ),
    "a complex number, a range and a slice of an earlier name": (
        ["C=1j+2;R=range(3);S=slice(1,2)", "l=[C,[R],(S,)]"],
        "l[0] is C and l[1][0] is R and l[2][0] is S",
    ),
    "a number of an ordinary cell in objects": (
        [
            "# ordinary\nMISSING=-1.0",
            "import collections,numpy as np\nclass A: __slots__=('x',)\na=A();a.x=MISSING;o=collections.OrderedDict(k=MISSING);q=collections.deque([MISSING]);n=np.array([MISSING,1],dtype=object)",
            "[MISSING]",
        ],
        "a.x is MISSING and o['k'] is MISSING and q[0] is MISSING and n[0] is MISSING and _[0] is MISSING",
    ),
    "numbers in much data": (
        ["EMPTY=-1.25", "grid=[[EMPTY]*100 for _ in range(200)]", "grid[1][1]=7.5"],
        "all(v is EMPTY for n,row in enumerate(grid) for m,v in enumerate(row) if (n,m)!=(1,1)) and grid[1][1]==7.5",
    ),
    "a number in the cell that binds it": (
        ["M=5000.5;l=[M];m=[5000.5+0*len(l)]"],
        "l[0] is M and m[0] is not M",
    ),
    "a number that an ordinary cell binds anew": (
        ["# ordinary\nimport time\nT=time.time()", "l=[T,(T,)]", "# ordinary\nT=0.5"],
        "l[0] > 1 and l[0] == l[1][0]",
    ),
    "a range and a zero that are equal to others": (
        ["# ordinary\nR=range(0,3,2);Z=0.0", "l=[R,Z,-0.0]"],
        "l[0] is R and l[1] is Z and str(l[2])=='-0.0'",
    ),
    "an index of frames": (
        [
            "import pandas as pd\ni=pd.Index(['a','b']);df=pd.DataFrame({'x':[1,2]},index=i)",
            "s=pd.Series([1,2],index=i)",
        ],
        "df.index is i and s.index is i",
    ),
    "dates, columns and several levels as an index": (
        [
            "import pandas as pd\nd=pd.date_range('2020',periods=2);m=pd.MultiIndex.from_product([['a'],[1,2]]);c=pd.Index(['x'])",
            "s=pd.Series([1,2],index=d);t=pd.Series([1,2],index=m);df=pd.DataFrame([[1],[2]],columns=c)",
        ],
        "s.index is d and t.index is m and df.columns is c and d.freq=='D'",
    ),
    "fractions, paths, ids and named tuples": (
        [
            "import fractions,uuid,pathlib,collections\nF=fractions.Fraction(1,3);U=uuid.UUID(int=5);P=pathlib.Path('x')\nN=collections.namedtuple('N','x')\nn=N(1)",
            "g=[F,U,P,n]",
        ],
        "g[0] is F and g[1] is U and g[2] is P and g[3] is n",
    ),
    # Slots.
    "of classes, bases and dataclasses": (
        [
            "import dataclasses\nclass S: __slots__=('q','__p')\nclass T(S):\n    __slots__='r'\nclass A(T): pass\n@dataclasses.dataclass(slots=True)\nclass D:\n    v: int\nt=T();t.q=1;t.r=2;a=A();a.q=3;a.x=4;d=D(5)",
            "t.q=6;d.v=7",
        ],
        "not hasattr(t,'__dict__') and not hasattr(d,'__dict__') and vars(a)=={'x':4} and (t.q,t.r,a.q,d.v)==(6,2,3,7) and S.q is T.q and D.v.__objclass__ is D and S.__slots__==('q','__p')",
    ),
    # Source.
    "of functions and methods": (
        [
            "import inspect\ndef f(x):\n    # c\n    return x+1\nclass K:\n    def m(s): return 2",
            "src=inspect.getsource(f)",
        ],
        "inspect.getsource(f)==src and 'def m' in inspect.getsource(K.m)",
    ),
    "in a traceback": (
        [
            "import traceback\ndef boom(x):\n    return 1/x\ndef told(f):\n    try: f(0)\n    except ZeroDivisionError: return traceback.format_exc()"
        ],
        "told(boom).count('return 1/x')==1",
    ),
    "of decorated and cached functions and a lambda": (
        [
            "import inspect,functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)\n    return w\n@deco\ndef g(): return 'body of g'\nh=[lambda v: v*3]\n@functools.lru_cache\ndef c(): return 'cc'"
        ],
        "'body of g' in inspect.getsource(g) and 'v*3' in inspect.getsource(h[0]) and \"'cc'\" in inspect.getsource(c)",
    ),
}
if sys.version_info >= (3, 12):
    KEPT |= {
        "an alias": (
            ["type V = list[int]", "def f(x: V) -> V: return x"],
            "V.__name__ == 'V' and f([1]) == [1] and f.__annotations__['x'] is V and V.__module__ == '__main__'",
        ),
        "an alias with a parameter": (
            ["type P[T] = tuple[T, T]\nx: P[int] = (1, 2)"],
            "P[int].__args__ == (int,) and P.__type_params__[0].__name__ == 'T'",
        ),
        "an alias of an own class": (
            ["class A: pass\ntype AA = list[A]\nd = {'t': AA}"],
            "d['t'] is AA and AA.__value__.__args__[0] is A",
        ),
        "an alias in a dataclass": (
            [
                "import dataclasses\ntype Id = int\n@dataclasses.dataclass\nclass R:\n    a: Id\nr = R(1)",
                "r.a = 2",
            ],
            "r.a == 2 and R.__annotations__['a'] is Id and Id.__value__ is int",
        ),
    }
# Durable cells of which some names cannot come back: the names, and an expression of the others.
NAMED = {
    "a reduction without its argument": (
        [
            "class Bad:\n    def __init__(s, h): s.h = h\n    def __reduce__(s): return Bad, ()\ngood = [1]\nbad = Bad(good)",
            "n = 1",
        ],
        {"bad"},
        "good == [1] and n == 1 and Bad(2).h == 2",
    ),
    "a state that fails": (
        [
            "class Bad:\n    def __setstate__(s, d): raise ValueError('no')\n    def __getstate__(s): return {'x': 1}\ngood = {'k': 1}\nheld = [good, Bad()]\nalso = good"
        ],
        {"held"},
        "good == {'k': 1} and also is good",
    ),
    "a constructor that needs an argument": (
        [
            "class Bad:\n    def __new__(cls, x): return object.__new__(cls)\nbad = Bad(1); good = (bad is None, [2]); pair = {'bad': bad}"
        ],
        {"bad", "pair"},
        "good == (False, [2])",
    ),
    "what a module of this process has": (
        [
            "import sys, types\nmade = types.ModuleType('made'); sys.modules.setdefault('made', made)\nexec('class A: __module__ = __name__', vars(made))\nbad = made.A(); good = [3]"
        ],
        {"bad", "made"},
        "good == [3]",
    ),
    "an instance of a class that cannot be saved": (
        [
            "import ctypes\nclass P(ctypes.Structure): _fields_ = [('x', ctypes.c_int)]\ngood = 4",
            "later = [P(1)]; fine = 2",
        ],
        {"P", "later"},
        "good == 4 and fine == 2",
    ),
}


CASES = {**{name: (cells, set(), check) for name, (cells, check) in KEPT.items()}, **NAMED}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return played_twice(tmp_path_factory.mktemp("kept"), CASES)


@pytest.mark.parametrize("name", CASES)
def test_it_comes_back_or_is_named_when_it_is_saved(played, name):
    check_replayed(played[name], CASES[name])


def test_the_process_that_loads_ends_with_the_kernel(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow helper --db runs.db")
    kernel.run("%%durable_step s\nclass A:\n    def __setstate__(s, d): vars(s).update(d)\na = A(); a.x = 1")
    helper = int(kernel.run("import psutil; print(*[p.pid for p in psutil.Process().children()])").text)
    import psutil

    process = psutil.Process(helper)
    kernel.sigkill()
    process.wait(timeout=30)


def test_loading_that_takes_too_long_is_given_up(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow slow --db runs.db")
    kernel.run("from durable_nb import settings\nsettings.TRIAL_BUDGET = 2.0")
    told = kernel.run(
        "%%durable_step s\nclass A:\n    def __setstate__(s, d):\n        import time; time.sleep(600)\na = A(); a.x = 1"
    )
    assert told.error is None
    assert told.facts["action"] == "executed"
    assert told.told.endswith("saved A, a · loading not tried (no end after 2 s): a")
    assert kernel.run("import psutil; print(psutil.Process().children())").text == "[]\n"
    again = kernel.run("%%durable_step t\nb = A(); b.x = 2")
    assert again.told.endswith("saved b")


def test_what_is_too_large_to_be_tried_or_ends_the_process_that_loads_is_said(kernel):
    kernel.run("%load_ext durable_nb\n%durable_workflow large --db runs.db")
    state = "class A:\n    def __setstate__(s, d): vars(s).update(d)\n"
    told = kernel.run(f"%%durable_step s\n{state}a = A(); a.x = bytes(70_000_000); b = [a]").told
    assert told.endswith("saved A, a, b · loading not tried (more than 64 MiB): a, b")
    state = "class B:\n    def __setstate__(s, d):\n        import os; os._exit(1)\n"
    told = kernel.run(f"%%durable_step t\n{state}c = B(); c.x = 1").told
    assert told.endswith("saved B, c · loading not tried (loading it failed): c")
    assert kernel.run("%%durable_step u\nd = A(); d.x = 1").told.endswith("saved d")
