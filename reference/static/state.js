const TRANSACTIONS = '/hoc.cus.policies.v1.TransactionService/List';
const HEALTH = '/grpc.health.v1.Health/List';

const at = (id) => document.getElementById(id);

/** An element of that name and class, with texts and elements in it. */
const element = (name, className, ...children) => {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
};

/** Calls an RPC without arguments; an error says its code and reason. */
const call = async (path) => {
  const token = at('token').value.trim();
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: '{}',
  });
  const answer = await response.json();
  if (response.ok) return answer;
  const reason = (answer.details ?? []).map(({ debug }) => debug?.reason).find(Boolean);
  throw new Error(`${answer.code}${reason ? ` (${reason})` : ''}: ${answer.message}`);
};

const showHealth = ({ statuses = {} }) => {
  const items = Object.entries(statuses)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { status = 'UNKNOWN' }]) =>
      element(
        'li',
        '',
        element('span', `badge ${status.toLowerCase()}`, status),
        ` ${name || 'the server as a whole'}`,
      ),
    );
  at('services').replaceChildren(...items);
};

const SHOWN = [
  ['id', 'id'],
  ['caller', 'caller'],
  ['isolation', 'isolationLevel'],
  ['began', 'beganAt'],
  ['expires', 'expiresAt'],
  ['age', 'age'],
  ['idle', 'idle'],
  ['last call', 'lastMethod'],
  ['calls', 'calls'],
  ['under way', 'pendingCalls'],
];

const showTransactions = ({ transactions = [] }) => {
  const items = transactions.map((transaction) => {
    const facts = SHOWN.filter(([, field]) => transaction[field] !== undefined).flatMap(([name, field]) => [
      element('dt', '', name),
      element('dd', '', String(transaction[field])),
    ]);
    const state = String(transaction.state).replace('TRANSACTION_STATE_', '');
    const title = [` ${transaction.label || 'without a label'}`, transaction.readOnly ? ', read-only' : ''];
    return element(
      'li',
      '',
      element('span', `badge ${state.toLowerCase()}`, state),
      ...title,
      element('dl', 'facts', ...facts),
    );
  });
  at('open').replaceChildren(...(items.length > 0 ? items : [element('li', '', 'None.')]));
  return items.length;
};

const refresh = async () => {
  at('said').textContent = 'Asking…';
  const [health, transactions] = await Promise.allSettled([call(HEALTH), call(TRANSACTIONS)]);
  const problems = [health, transactions].flatMap(({ reason }) => (reason ? [reason.message] : []));
  if (health.value) showHealth(health.value);
  else at('services').replaceChildren();
  if (transactions.value) showTransactions(transactions.value);
  else at('open').replaceChildren();
  const count = (transactions.value?.transactions ?? []).length;
  const found = `${new Date().toLocaleTimeString()}: ${count} open ${count === 1 ? 'transaction' : 'transactions'}`;
  at('said').textContent = problems.length > 0 ? problems.join(' ') : found;
  at('said').classList.toggle('problem', problems.length > 0);
};

at('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  void refresh();
});
void refresh();
