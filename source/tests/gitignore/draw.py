# Prints verdicts.txt: python3 draw.py SETS. Sets are drawn from a fixed seed; `git check-ignore` judges them.
import os, random, subprocess, sys, tempfile
folder=tempfile.TemporaryDirectory(); root=folder.name
subprocess.run(['git','init','-q',root],check=True)
rnd=random.Random(20261128)
names=['a','b','ab','a.log','b.log','A','build','doc','a{b','{a}','{a,b}','[a]','a]','!a','#a','trail ','trail','a b','*','?','a*b','\\','a\\b','.hidden','é','x1','x9','-','a-b','^a',' lead','foo.tmp','keep','keep.log','A.LOG','[','a\tb','tab\t','cr\r','~a','a+b','a.b','$']
paths=set()
for n in names: paths.add((n,rnd.random()<.4))
for _ in range(160):
    d=rnd.randint(1,4); paths.add(('/'.join(rnd.choice(names) for _ in range(d)),rnd.random()<.3))
made=[]
for p,isdir in sorted(paths,key=lambda x:(x[0].count('/'),x)):
    f=os.path.join(root,p)
    try:
        os.makedirs(os.path.dirname(f),exist_ok=True)
        if isdir: os.makedirs(f,exist_ok=True)
        elif not os.path.exists(f): open(f,'w').close()
    except (FileExistsError,NotADirectoryError): continue
allp=[]
for dp,dn,fn in os.walk(root):
    if dp==root: dn.remove('.git')
    for n in dn: allp.append((os.path.relpath(os.path.join(dp,n),root),True))
    for n in fn: allp.append((os.path.relpath(os.path.join(dp,n),root),False))
allp.sort()
atoms=['a','b','ab','log','.log','.','*','*','**','?','[ab]','[!a]','[^a]','[a-z]','[[:alpha:]]','[[:digit:]]','[[:space:]]','[[:upper:]]','{a}','{a,b}','{','}','[',']','\\','\\*','\\?','\\[','\\\\','\\{','\\ ',' ','!','#','\\!','\\#','x','1','build','doc','keep','tmp','-','[a-]','[]a]','[]-]','[\\]]','[a','[[:nope:]]','é','\t','^','+','~','$','[!-a]','[*]','[?]','trail','A','hidden']
def seg():
    r=rnd.random()
    if r<.35: return rnd.choice(names)
    if r<.45: return '**'
    return ''.join(rnd.choice(atoms) for _ in range(rnd.randint(1,3)))
fixed=[b'{a}\n',b'[[:alpha:]]\n',b'trail\\ \n',b'trail \n',b'\xef\xbb\xbfa.log\n',b'a.log\r\n',b'cr\r\n',b'*\n!*/\n!*.log\n',b'/*\n!/a\n',b'a/**\n!a/b\n',b'**/\n',b'**\n',b'/\n',b'!\n',b'\\\n',b'a\\\n',b'//a\n',b'a//b\n',b'./a\n',b'a/./b\n',b'../a\n',b'a/../b\n',b'[\n',b'[]\n',b'[!]\n',b'a/\\\n',b'\\a\n',b'***\n',b'a/***/b\n',b'a**b\n',b'**a\n',b'a**/b\n',b'**b/a\n', b'#a\n', b'\\#a\n', b'  \n', b' lead\n', b'a/b/\n', b'tab\t\n',b'a\\ b\n',b'a?b\n',b'*/b\n',b'?\n',b'/**/a\n',b'/**\n',b'a/**/**/b\n',b'**/**\n',b'a/*/b\n',b'*a*\n',b'[a-\n',b'\xe9\n', b'\xc3\xa9\n']
sets=list(fixed)
N=int(sys.argv[1])
while len(sets)<N:
    lines=[]
    for _ in range(rnd.randint(1,4)):
        l='/'.join(seg() for _ in range(rnd.choice([1,1,1,2,2,3])))
        if rnd.random()<.2: l='/'+l
        if rnd.random()<.25: l+='/'
        if rnd.random()<.25: l='!'+l
        if rnd.random()<.08: l+=rnd.choice([' ','  ','\t','\\ ','\\  ',' \\','\r'])
        if rnd.random()<.05: l=rnd.choice([' ','#','\\#','\\!'])+l
        lines.append(l)
    if rnd.random()<.5: lines.insert(0,rnd.choice(['*','a','b','/*','doc','*.log','a/','**']))
    t='\n'.join(lines)+'\n'
    b=t.encode()
    if rnd.random()<.05: b=b'\xef\xbb\xbf'+b
    sets.append(b)
inp=b''.join(p.encode('utf-8','surrogateescape')+b'\0' for p,_ in allp)
out=[]
for b in sets:
    open(root+'/.git/info/exclude','wb').write(b)
    r=subprocess.run(['git','-c','core.excludesFile=/dev/null','check-ignore','--no-index','-z','--stdin'],cwd=root,input=inp,stdout=subprocess.PIPE,stderr=subprocess.PIPE)
    assert r.returncode in (0,1),(b,r)
    hit=set(r.stdout.split(b'\0'))
    out.append({'patterns':list(b),'hit':[p.encode('utf-8','surrogateescape') in hit for p,_ in allp]})

esc=lambda b: ''.join(chr(c) if 32<=c<127 and c!=92 else '\\x%02x'%c for c in b)
print("# What git 2.47 leaves out. First the paths of the tree, then sets of patterns and the numbers of the paths that each leaves out.")
for p,isdir in allp: print('path '+esc(p.encode('utf-8','surrogateescape'))+('/' if isdir else ''))
for s in out:
    print('set '+esc(bytes(s['patterns']))); print('out '+' '.join(str(i) for i,h in enumerate(s['hit']) if h))
