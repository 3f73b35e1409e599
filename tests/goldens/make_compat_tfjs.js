// What the optimizers of TensorFlow.js do, for make_compat.py: cases as JSON on the standard input,
// trajectories as JSON on the standard output.
const {readFileSync} = require('fs');
const tf = require('@tensorflow/tfjs');

const PARAMETERS = {
  sgd: ['learningRate'],
  momentum: ['learningRate', 'momentum', 'useNesterov'],
  adagrad: ['learningRate', 'initialAccumulatorValue'],
  adadelta: ['learningRate', 'rho', 'epsilon'],
  rmsprop: ['learningRate', 'decay', 'momentum', 'epsilon', 'centered'],
  adam: ['learningRate', 'beta1', 'beta2', 'epsilon'],
  adamax: ['learningRate', 'beta1', 'beta2', 'epsilon', 'decay'],
};

const parts = (x) => [tf.tensor(x.slice(0, 6), [2, 3]), tf.tensor(x.slice(6), [2])];

function trajectory(name, args, asked, drop) {
  const known = PARAMETERS[name];
  const unknown = Object.keys(args).filter((key) => !known.includes(key));
  if (unknown.length) throw new Error(`${name} takes no ${unknown}`);
  const optimizer = tf.train[name](...known.map((key) => args[key]));
  const [kernel, bias] = parts(asked.start).map((x, i) => tf.variable(x, true, ['kernel', 'bias'][i]));
  const steps = asked.gradients.map((gradient, step) => {
    if (drop && step === asked.drop_at) {
      const rate = args.learningRate / 10;
      if (optimizer.setLearningRate) optimizer.setLearningRate(rate);
      else optimizer.learningRate = rate;
    }
    const [k, b] = parts(gradient);
    optimizer.applyGradients({kernel: k, bias: b});
    return [...kernel.dataSync(), ...bias.dataSync()];
  });
  kernel.dispose();
  bias.dispose();
  return steps;
}

async function main() {
  await tf.setBackend('cpu');
  await tf.ready();
  const asked = JSON.parse(readFileSync(0, 'utf8'));
  const cases = {};
  for (const [key, [name, args]] of Object.entries(asked.cases)) {
    cases[key] = trajectory(name, args, asked, key.endsWith('_drop'));
  }
  process.stdout.write(JSON.stringify({version: tf.version.tfjs, cases}));
}

main();
