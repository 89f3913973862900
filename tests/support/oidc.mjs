// A certified authorization server (oidc-provider) and a service that verifies its tokens (jose). Arguments: MODULES ADDRESS PORT PEM, where
// MODULES is a folder in whose node_modules both are. What it says on standard output is what it saw; the first line after `ready` is a refresh
// token, which was given as if a person had agreed.
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, address, port, pem] = process.argv.slice(2);
const load = (name, file) => import(pathToFileURL(path.join(modules, 'node_modules', name, file)).href);
const { default: Provider, errors } = await load('oidc-provider', 'lib/index.js');
const jose = await load('jose', 'dist/webapi/index.js').catch(() => load('jose', 'dist/node/esm/index.js'));

const API = 'https://api.example.com/';
const { privateKey } = await jose.generateKeyPair('RS256', { extractable: true });
const jwk = { ...(await jose.exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'one' };
const client = (client_id, method, more) => ({
  client_id, client_secret: 'client-secret/+0123456789', token_endpoint_auth_method: method,
  redirect_uris: [], response_types: [], grant_types: ['client_credentials'], ...more,
});
const provider = new Provider('https://login.example.com', {
  clients: [
    client('bot-basic', 'client_secret_basic'),
    client('bot-post', 'client_secret_post'),
    client('bot-refresh', 'client_secret_basic', {
      grant_types: ['refresh_token', 'authorization_code'], response_types: ['code'], redirect_uris: ['https://bot.example.com/cb'],
    }),
  ],
  jwks: { keys: [jwk] },
  scopes: ['openid', 'offline_access', 'read', 'write'],
  ttl: { ClientCredentials: 300, RefreshToken: 3600, Grant: 3600 },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => API,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== API) throw new errors.InvalidTarget();
        return { scope: 'read write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 300 };
      },
    },
  },
});
provider.proxy = true;
for (const event of ['grant.success', 'grant.error']) {
  provider.on(event, (ctx, error) => {
    const { grant_type, scope, resource } = ctx.oidc.params ?? {};
    console.log('token', event, grant_type, scope, resource, error ? `${error.error} ${error.error_detail ?? ''}` : '');
  });
}

const grant = new provider.Grant({ accountId: 'a-person', clientId: 'bot-refresh' });
grant.addOIDCScope('openid offline_access');
grant.addResourceScope(API, 'read');
const refresh = new provider.RefreshToken({
  client: await provider.Client.find('bot-refresh'), accountId: 'a-person', grantId: await grant.save(), gty: 'authorization_code',
  scope: 'openid offline_access read', resource: API, expiresWithSession: false, rotations: 0,
});

const keys = jose.createLocalJWKSet({ keys: [{ kty: jwk.kty, n: jwk.n, e: jwk.e, kid: jwk.kid, alg: jwk.alg, use: jwk.use }] });
const service = async (request, response) => {
  const token = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  let told;
  try {
    const { payload } = await jose.jwtVerify(token, keys, { audience: API, issuer: 'https://login.example.com', typ: 'at+jwt' });
    told = { client_id: payload.client_id, scope: payload.scope, sub: payload.sub };
  } catch (error) {
    told = { error: error.code };
  }
  console.log('request', request.method, request.url, JSON.stringify(told));
  response.writeHead(told.error ? 401 : 200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(told));
};
const callback = provider.callback();
const text = fs.readFileSync(pem);
const server = https.createServer({ cert: text, key: text }, (request, response) =>
  request.headers.host === 'login.example.com' ? callback(request, response) : service(request, response));
const value = await refresh.save();
server.listen(Number(port), address, () => console.log(`ready\n${value}`));
